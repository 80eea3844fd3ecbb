//! A **claim and a namespaced XR through a real control plane**: Crossplane core calls the function over mTLS, provider-helm
//! installs the vcluster's own chart.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use vcluster_backup_tests::core::{self, namespace};
use vcluster_backup_tests::crossplane::compositions;
use vcluster_backup_tests::host_cluster::{HostCluster, TOOLS, has};
use vcluster_backup_tests::toolbox::Tools;
use vcluster_backup_tests::vcluster::base64;

/// Each of them is most of a gigabyte: one after the other.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A flavour, and where things are in it: the shipped example `minimal` is Vcluster `dev` of `team-a`.
struct Flavour {
    name: &'static str,
    /// Where the vcluster is installed.
    home: &'static str,
    /// Kind, namespace and name of what the user writes.
    written: (&'static str, &'static str, &'static str),
    release: (&'static str, &'static str, &'static str),
    /// Where the identity is.
    identity: (&'static str, &'static str, &'static str),
}

const CLAIM: Flavour = Flavour {
    name: "claim",
    home: "vcluster-team-a-dev",
    written: ("vclusters.vcluster-backup.io", "team-a", "dev"),
    release: ("releases.helm.crossplane.io", "", "vcluster-team-a-dev"),
    identity: ("secret", core::NAMESPACE, "team-a.dev-backup-identity"),
};

#[tokio::test]
async fn a_claim_becomes_a_vcluster_with_a_backup() -> Result<()> {
    let Some(tools) = Tools::with(TOOLS) else { return Ok(()) };
    let _turn = ONE_AT_A_TIME.lock().await;
    let begin = std::time::Instant::now();
    let host = HostCluster::start(&tools, &["0.36.1"]).await?;
    println!("{:?} started", begin.elapsed());
    host.install(CLAIM.name, existing_storage).await?;
    println!("{:?} installed", begin.elapsed());
    let s3 = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "platform-s3", "namespace": core::NAMESPACE},
        "data": {"AWS_ACCESS_KEY_ID": base64("key"), "AWS_SECRET_ACCESS_KEY": base64("secret")},
    });
    host.api().apply(&[namespace("team-a"), s3])?;
    host.apply_file(&compositions().join(CLAIM.name).join("examples/minimal.yaml"))?;
    let claim =
        host.until_object("the claim is ready", CLAIM.written, |claim| has(claim, "Ready", "True")).await;
    println!("{:?} ready", begin.elapsed());
    for what in ["vclusters,xvclusters,releases -A -o yaml", "secrets,cm -A", "events -A", "all -A"] {
        let args: Vec<&str> = ["get"].into_iter().chain(what.split(' ')).collect();
        println!("{}", host.api().kubectl(&args)?);
    }
    println!("calls {}", host.function().calls().await?);
    claim?;
    Ok(())
}

/// The bucket is the platform's: no provider of buckets can be had.
fn existing_storage(step: &mut Value) {
    step["input"]["storage"] = json!({
        "endpoint": "http://127.0.0.1:9000",
        "provisioner": "Existing",
        "existing": {
            "bucket": "backups",
            "secretRef": {"namespace": core::NAMESPACE, "name": "platform-s3"},
        },
    });
}
