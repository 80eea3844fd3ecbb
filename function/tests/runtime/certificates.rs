//! Calls with TLS: who is served, who is refused, certificates that change.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use function_vcluster_backup::server::Function;
use function_vcluster_backup::tls::{CertificateError, Certificates};
use tonic::transport::ClientTlsConfig;

use crate::authority::{Authority, Keys, Leaf, Mount};
use crate::running::{Running, call, call_v1beta1, echo};

/// Whether a new connection with this configuration gets an answer.
async fn served(server: &Running, tls: Option<ClientTlsConfig>) -> bool {
    // With TLS 1.3 a client learns that it was refused only when it first reads.
    match server.connect(tls).await {
        Ok(channel) => call(channel, "tag").await.is_ok_and(|tag| tag == "tag"),
        Err(_) => false,
    }
}

async fn both_versions(keys: Keys) {
    if !keys.available() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "openssl is not on PATH");
        eprintln!("skipped: keys of kind {keys:?}, as openssl is not on PATH");
        return;
    }
    let ca = Authority::new(keys);
    let mount = Mount::new(&ca, &ca.server());
    let server = Running::start(Some(mount.path()), echo()).await;
    let channel = server.connect(Some(ca.connects(Some(&ca.client())))).await.unwrap();
    assert_eq!(call(channel.clone(), "one").await.unwrap(), "one");
    assert_eq!(call_v1beta1(channel, "two").await.unwrap(), "two");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn ec_keys_are_served() {
    both_versions(Keys::Ec).await;
}

#[tokio::test]
async fn ec_keys_in_sec1_are_served() {
    both_versions(Keys::EcSec1).await;
}

#[tokio::test]
async fn rsa_keys_are_served() {
    both_versions(Keys::Rsa).await;
}

#[tokio::test]
async fn rsa_keys_in_pkcs1_are_served() {
    both_versions(Keys::RsaPkcs1).await;
}

#[tokio::test]
async fn only_clients_of_the_ca_are_served() {
    let (ca, other) = (Authority::new(Keys::Ec), Authority::new(Keys::Ec));
    let mount = Mount::new(&ca, &ca.server());
    let calls = Arc::new(AtomicUsize::new(0));
    let (counted, answer) = (Arc::clone(&calls), echo());
    let function: Function = Arc::new(move |request| {
        counted.fetch_add(1, Ordering::SeqCst);
        answer(request)
    });
    let server = Running::start(Some(mount.path()), function).await;

    assert!(!served(&server, Some(ca.connects(None))).await, "a client without a certificate");
    assert!(!served(&server, Some(ca.connects(Some(&other.client())))).await, "a client of another CA");
    assert!(
        !served(&server, Some(ca.connects(Some(&ca.server())))).await,
        "a certificate that is no client's"
    );
    assert!(!served(&server, None).await, "a client without TLS");
    assert_eq!(calls.load(Ordering::SeqCst), 0);

    assert!(served(&server, Some(ca.connects(Some(&ca.client())))).await);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn changed_certificates_are_served_without_a_restart() {
    let (old, new) = (Authority::new(Keys::Ec), Authority::new(Keys::Ec));
    let leaf = old.server();
    let mut mount = Mount::new(&old, &leaf);
    let server = Running::start(Some(mount.path()), echo()).await;
    let old_way = old.connects(Some(&old.client()));
    let new_way = new.connects(Some(&new.client()));
    assert!(served(&server, Some(old_way.clone())).await);
    assert!(!served(&server, Some(new_way.clone())).await);

    // The CA that clients are checked against, alone: a client of the new one that still trusts the old server.
    mount.swap(&new, &leaf);
    assert!(served(&server, Some(old.connects(Some(&new.client())))).await);
    assert!(!served(&server, Some(old_way.clone())).await);

    // Both.
    mount.swap(&new, &new.server());
    assert!(served(&server, Some(new_way)).await);
    assert!(!served(&server, Some(old_way)).await);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn broken_certificates_leave_the_last_good_ones_in_force() {
    let (ca, other) = (Authority::new(Keys::Ec), Authority::new(Keys::Ec));
    let mut mount = Mount::new(&ca, &ca.server());
    let server = Running::start(Some(mount.path()), echo()).await;
    let way = ca.connects(Some(&ca.client()));

    mount.swap_files(&[("tls.crt", "no PEM"), ("tls.key", ""), ("ca.crt", "")]);
    assert!(served(&server, Some(way.clone())).await);
    mount.swap_files(&[]);
    assert!(served(&server, Some(way.clone())).await);

    mount.swap(&other, &other.server());
    assert!(!served(&server, Some(way)).await);
    assert!(served(&server, Some(other.connects(Some(&other.client())))).await);
    server.stop().await.unwrap();
}

#[test]
fn certificates_that_cannot_be_served_say_why() {
    fn refused(change: impl FnOnce(&Authority, &Leaf, &mut Mount)) -> (String, CertificateError) {
        let ca = Authority::new(Keys::Ec);
        let leaf = ca.server();
        let mut mount = Mount::new(&ca, &leaf);
        change(&ca, &leaf, &mut mount);
        let error = Certificates::open(mount.path()).unwrap_err();
        (error.to_string().replace(mount.path().to_str().unwrap(), "DIR"), error)
    }
    let (text, error) = refused(|_, _, mount| fs::remove_file(mount.path().join("tls.key")).unwrap());
    assert!(matches!(error, CertificateError::Read { .. }), "{error:?}");
    assert_eq!(
        text,
        "cannot read DIR/tls.key: mount the Secret that Crossplane makes for the function, with tls.crt, tls.key \
         and ca.crt, and name its folder by --tls-certs-dir"
    );
    let (text, _) = refused(|_, _, mount| {
        fs::remove_file(mount.path().join("ca.crt")).unwrap();
        fs::write(mount.path().join("ca.crt"), "").unwrap();
    });
    assert_eq!(text, "DIR/ca.crt holds no certificate: it must be a PEM file");
    let (text, _) = refused(|_, _, mount| {
        fs::remove_file(mount.path().join("tls.key")).unwrap();
        fs::copy(mount.path().join("tls.crt"), mount.path().join("tls.key")).unwrap();
    });
    assert_eq!(text, "DIR/tls.key holds no private key: it must be a PEM file");
    let (text, error) = refused(|ca, leaf, mount| {
        let mixed = leaf.with_key_of(&ca.server());
        mount.swap(ca, &mixed);
    });
    assert!(matches!(error, CertificateError::Pair { .. }), "{error:?}");
    assert_eq!(text, "tls.crt and tls.key in DIR do not belong together, or their kind is not supported");
}
