"""Calls a function as the official SDK for Python speaks to one: a request from stdin, the response to stdout, as JSON.

Usage: client.py TARGET [CA [CERTIFICATE KEY]]

Without a CA there is no TLS; without a certificate the client shows none. A call that fails ends with code 3 and the
name of its status on stderr.
"""

import sys

import grpc
from crossplane.function.proto.v1 import run_function_pb2, run_function_pb2_grpc
from google.protobuf import json_format


def read(path):
    with open(path, "rb") as file:
        return file.read()


def channel(target, ca=None, certificate=None, key=None):
    if ca is None:
        return grpc.insecure_channel(target)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=read(ca),
        private_key=read(key) if key else None,
        certificate_chain=read(certificate) if certificate else None,
    )
    return grpc.secure_channel(target, credentials)


def main():
    request = json_format.Parse(sys.stdin.read(), run_function_pb2.RunFunctionRequest())
    with channel(*sys.argv[1:]) as connection:
        stub = run_function_pb2_grpc.FunctionRunnerServiceStub(connection)
        try:
            response = stub.RunFunction(request, timeout=10)
        except grpc.RpcError as error:
            print(error.code().name, file=sys.stderr)
            return 3
    print(json_format.MessageToJson(response, indent=None))
    return 0


if __name__ == "__main__":
    sys.exit(main())
