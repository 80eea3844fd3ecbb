//! **etcd's API** as kube-apiserver speaks it: messages and client, generated from `proto/etcd.proto`.

#![allow(missing_docs, clippy::all, clippy::pedantic)]

tonic::include_proto!("etcdserverpb");
