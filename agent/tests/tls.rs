//! TLS to the store: the system's certificates, a CA of one's own, or none checked at all.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::sync::Arc;

use support::{Bench, finish};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use vcluster_backup_tests::kine_shaped;

/// Takes TLS off in front of the S3 server; returns its endpoint and the certificate that it shows.
async fn terminator(bench: &Bench) -> (String, String) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let (acceptor, behind) =
        (TlsAcceptor::from(Arc::new(config)), bench.s3.endpoint().replace("http://", ""));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                // A client that refuses the certificate ends the handshake.
                let Ok(mut front) = acceptor.accept(socket).await else { return };
                let mut back = TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut front, &mut back).await;
            });
        }
    });
    (endpoint, cert.pem())
}

#[tokio::test]
async fn a_certificate_is_checked_unless_told_otherwise() {
    let bench = Bench::new().await;
    let (endpoint, certificate) = terminator(&bench).await;
    std::fs::write(bench.path("ca.pem"), certificate).unwrap();
    std::fs::write(bench.path("empty.pem"), "no certificate").unwrap();
    kine_shaped::create(&bench.path("state.db"), 5000, 2000).unwrap();
    let recipient = bench.recipient();
    let with = |more: &[&str]| {
        let mut command = bench.command(&["snapshot", "--database", "state.db", "--recipient", &recipient]);
        command.args(more).env("ENDPOINT", &endpoint);
        finish(command)
    };
    with(&[]).await.refused(1, &["cannot reach", "certificate"]);
    with(&["--ca-file", "empty.pem"]).await.refused(2, &["empty.pem holds no PEM certificate"]);
    with(&["--ca-file", "ca.pem"]).await.ended(0);
    with(&["--insecure"]).await.ended(0);
    let mut restore =
        bench.command(&["restore", "--output", "out.db", "--identity-file", "key.txt", "--insecure"]);
    restore.env("ENDPOINT", &endpoint);
    finish(restore).await.ended(0);
    assert_eq!(
        kine_shaped::rows(&bench.path("out.db")).unwrap(),
        kine_shaped::rows(&bench.path("state.db")).unwrap()
    );
}
