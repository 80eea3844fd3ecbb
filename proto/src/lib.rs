//! Crossplane's **function protocol**: messages, client and server, generated from
//! `proto/apiextensions/fn/v1/run_function.proto`. Nothing else lives here.
//!
//! `v1beta1` is `v1` under another package name, byte for byte the same on the wire. Crossplane calls `v1`
//! and falls back to `v1beta1` when that is not implemented; up to 1.16 it knows `v1beta1` alone.

#![forbid(unsafe_code)]

/// Package `apiextensions.fn.proto.v1`.
#[allow(missing_docs, deprecated, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("apiextensions.r#fn.proto.v1");
}

/// Package `apiextensions.fn.proto.v1beta1`.
#[allow(missing_docs, deprecated, clippy::all, clippy::pedantic)]
pub mod v1beta1 {
    tonic::include_proto!("apiextensions.r#fn.proto.v1beta1");
}

/// Both packages as an encoded `google.protobuf.FileDescriptorSet`, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/run_function.bin"));
