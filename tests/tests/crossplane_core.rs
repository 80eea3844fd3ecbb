//! A **claim and a namespaced XR through a real control plane**: Crossplane core calls the function over mTLS, and
//! provider-helm installs the vcluster's own chart.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use vcluster_backup_tests::core::{NAMESPACE, namespace};
use vcluster_backup_tests::crossplane::compositions;
use vcluster_backup_tests::host_cluster::{HostCluster, TOOLS, has};
use vcluster_backup_tests::process;
use vcluster_backup_tests::reach::Reach;
use vcluster_backup_tests::toolbox::Tools;
use vcluster_backup_tests::vcluster::base64;

/// Each of them is most of a gigabyte: one after the other.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
/// So often the XR is looked at again.
const RECONCILES: usize = 20;

/// Kind, namespace and name; cluster-scoped kinds ignore the namespace.
type Object<'a> = (&'a str, &'a str, &'a str);

/// A flavour, and where things are in it: the shipped example `minimal` is the Vcluster `dev` of `team-a`.
struct Flavour {
    name: &'static str,
    /// What the user writes.
    vcluster: Object<'static>,
    /// Where it is installed.
    home: &'static str,
    release: Object<'static>,
    identity: Object<'static>,
}

const CLAIM: Flavour = Flavour {
    name: "claim",
    vcluster: ("vclusters.vcluster-backup.io", "team-a", "dev"),
    home: "vcluster-team-a-dev",
    release: ("releases.helm.crossplane.io", "default", "vcluster-team-a-dev"),
    identity: ("secret", NAMESPACE, "team-a.dev-backup-identity"),
};

const NAMESPACED: Flavour = Flavour {
    name: "namespaced",
    vcluster: ("vclusters.vcluster-backup.io", "team-a", "dev"),
    home: "team-a",
    release: ("releases.helm.m.crossplane.io", "team-a", "dev"),
    identity: ("secret", "team-a", "dev-backup-identity"),
};

#[tokio::test]
async fn a_claim_becomes_a_vcluster_with_a_backup() -> Result<()> {
    let Some(tools) = Tools::with(TOOLS) else { return Ok(()) };
    let _turn = ONE_AT_A_TIME.lock().await;
    let mut story = Story::begin(&tools, &CLAIM).await?;
    story.life().await?;
    // The pod sees Secrets, and none of them opens a backup.
    let reach = Reach::of(story.host.api(), CLAIM.home, "dev");
    assert_eq!(reach.identities()?, Vec::<String>::new());
    let (kind, namespace, name) = CLAIM.identity;
    reach.cannot_read((kind, namespace, Some(name)))?;
    reach.cannot_read(("secrets", NAMESPACE, None))?;
    story.end()
}

#[tokio::test]
async fn a_namespaced_xr_becomes_a_vcluster_with_a_backup() -> Result<()> {
    let Some(tools) = Tools::with(TOOLS) else { return Ok(()) };
    let _turn = ONE_AT_A_TIME.lock().await;
    let mut story = Story::begin(&tools, &NAMESPACED).await?;
    story.life().await?;
    // As shipped the identity is where the pod reads it, kept and for the init container, and the condition says so.
    let api = story.host.api();
    let read = ["\"Secret\" \"dev-backup-identity\"", "\"Secret\" \"dev-backup-restore\""];
    assert_eq!(Reach::of(api, NAMESPACED.home, "dev").identities()?, read);
    let vcluster = story.vcluster(|_| true).await?;
    assert!(has(&vcluster, "KeySealed", "False"), "{vcluster}");

    // With a master key nothing is where the pod could read it.
    let key = secret(NAMESPACE, "vcluster-backup-master-key", &[("master-key", &"k".repeat(48))]);
    api.apply(&[namespace("team-b"), key])?;
    story
        .host
        .install(NAMESPACED.name, |step| {
            existing_storage(step);
            step["input"]["encryption"]["identity"] = json!("Sealed");
            step["credentials"] = json!([{
                "name": "master-key",
                "source": "Secret",
                "secretRef": {"namespace": NAMESPACE, "name": "vcluster-backup-master-key"},
            }]);
        })
        .await?;
    let sealed = json!({
        "apiVersion": "vcluster-backup.io/v1alpha1",
        "kind": "Vcluster",
        "metadata": {"name": "sealed", "namespace": "team-b"},
        "spec": {},
    });
    api.apply(&[sealed])?;
    let sealed = ("vclusters.vcluster-backup.io", "team-b", "sealed");
    let sealed = story.host.until_object("ready", sealed, |vcluster| has(vcluster, "Ready", "True")).await?;
    assert!(has(&sealed, "KeySealed", "True"), "{sealed}");
    let reach = Reach::of(api, "team-b", "sealed");
    assert_eq!(reach.identities()?, Vec::<String>::new());
    reach.cannot_read(("secret", NAMESPACE, Some("vcluster-backup-master-key")))?;
    reach.cannot_read(("secret", "team-a", Some("dev-backup-identity")))?;
    story.end()
}

/// One Vcluster's life on a host cluster of its own.
struct Story<'a> {
    tools: &'a Tools,
    flavour: &'a Flavour,
    host: HostCluster,
}

impl<'a> Story<'a> {
    async fn begin(tools: &'a Tools, flavour: &'a Flavour) -> Result<Self> {
        let host = HostCluster::start(tools, &["0.36.1"]).await?;
        host.install(flavour.name, existing_storage).await?;
        let keys = [("AWS_ACCESS_KEY_ID", "key of the platform"), ("AWS_SECRET_ACCESS_KEY", "its secret")];
        host.api().apply(&[namespace("team-a"), secret(NAMESPACE, "platform-s3", &keys)])?;
        host.apply_file(&compositions().join(flavour.name).join("examples/minimal.yaml"))?;
        Ok(Self { tools, flavour, host })
    }

    /// Everything that both flavours have in common.
    async fn life(&mut self) -> Result<()> {
        self.comes_to_be().await?;
        self.agent_reports().await?;
        self.stays_as_it_is().await?;
        self.pauses().await?;
        self.is_switched_off().await?;
        self.loses_its_identity().await
    }

    /// Nothing of it is left; no other test of this file runs now.
    fn end(self) -> Result<()> {
        drop(self.host);
        assert_eq!(process::children()?, Vec::<String>::new());
        Ok(())
    }

    async fn comes_to_be(&self) -> Result<()> {
        let vcluster = self.vcluster(|vcluster| has(vcluster, "Ready", "True")).await?;
        for condition in ["Synced", "CredentialsReady", "StorageReady", "ClusterReady"] {
            assert!(has(&vcluster, condition, "True"), "{condition}: {vcluster}");
        }
        let status = &vcluster["status"];
        assert_eq!(status["backup"]["bucket"], "backups");
        assert!(
            status["backup"]["recipient"].as_str().is_some_and(|recipient| recipient.starts_with("age1"))
        );
        assert_eq!(status["cluster"]["version"], "0.36.1");
        // Helm has installed what was composed.
        let release = self.get(self.flavour.release)?;
        assert_eq!(release["status"]["atProvider"]["state"], "deployed", "{release}");
        let pod = self.pod()?;
        assert_eq!(names(&pod["containers"]), ["syncer", "vcluster-backup"]);
        assert_eq!(names(&pod["initContainers"]).last().map(String::as_str), Some("vcluster-backup-ensure"));
        // What the pod mounts is there, but for what is there for a restore alone.
        for volume in pod["volumes"].as_array().context("a pod without volumes")? {
            let optional = volume["secret"]["optional"] == true;
            if let Some(name) = volume["secret"]["secretName"].as_str().filter(|_| !optional) {
                self.get(("secret", self.flavour.home, name)).map(drop)?;
            }
            if let Some(name) = volume["configMap"]["name"].as_str() {
                self.get(("configmap", self.flavour.home, name)).map(drop)?;
            }
        }
        Ok(())
    }

    /// The agent's word, in its pod's name, is the user's to see.
    async fn agent_reports(&self) -> Result<()> {
        let now = std::process::Command::new("date").args(["-u", "+%FT%TZ"]).output()?;
        let now = String::from_utf8(now.stdout)?;
        let report = ["phase=Replicating", &format!("lastSuccess={}", now.trim()), "revision=4711"];
        let report = report.map(|entry| format!("--from-literal={entry}"));
        let make = ["create", "configmap", "dev-backup-status", "-n", self.flavour.home];
        let make: Vec<&str> = make.into_iter().chain(report.iter().map(String::as_str)).collect();
        Reach::of(self.host.api(), self.flavour.home, "dev").kubectl(&make)?;
        let vcluster = self.vcluster(|vcluster| has(vcluster, "BackupHealthy", "True")).await?;
        assert_eq!(vcluster["status"]["backup"]["revision"], 4711);

        let (kind, namespace, name) = self.flavour.vcluster;
        let printed = self.host.api().kubectl(&["get", kind, "-n", namespace, name])?;
        let (head, line) = printed.split_once('\n').context("a table without lines")?;
        for column in ["VERSION", "BACKUP", "LAST BACKUP", "SYNCED", "READY", "AGE"] {
            assert!(head.contains(column), "no column {column}:\n{printed}");
        }
        assert!(line.contains("0.36.1") && line.contains("Replicating"), "{printed}");
        Ok(())
    }

    /// However often it is looked at, and by a core that knows nothing of it: the same Secrets, the same release.
    async fn stays_as_it_is(&mut self) -> Result<()> {
        let secrets = self.secrets()?;
        assert!(secrets.len() >= 2, "{:?}", secrets.keys());
        let release = self.get(self.flavour.release)?;
        for number in 0..RECONCILES {
            let calls = self.host.function().calls().await?;
            self.annotate(&format!("example.org/look={number}"))?;
            self.called_after(calls).await?;
        }
        let calls = self.host.function().calls().await?;
        self.host.restart_core(self.tools).await?;
        self.called_after(calls).await?;
        self.annotate("example.org/look-")?;
        assert_eq!(self.secrets()?, secrets);
        let after = self.get(self.flavour.release)?;
        assert_eq!(after["metadata"]["generation"], release["metadata"]["generation"]);
        assert_eq!(after["status"]["atProvider"]["revision"], release["status"]["atProvider"]["revision"]);
        Ok(())
    }

    /// While the XR is paused nothing that the user writes comes to anything; it does afterwards.
    async fn pauses(&self) -> Result<()> {
        self.annotate("crossplane.io/paused=true")?;
        let (kind, namespace, name) = self.xr()?;
        let paused = |xr: &Value| {
            let conditions = xr["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|condition| condition["reason"] == "ReconcilePaused")
        };
        self.host.until_object("paused", (kind, namespace, &name), paused).await?;
        let release = self.get(self.flavour.release)?;
        let calls = self.host.function().calls().await?;
        self.set(&json!({"values": {"sync": {"toHost": {"ingresses": {"enabled": true}}}}}))?;
        let changed = |object: &Value| object["spec"]["values"]["sync"].is_object();
        self.host.until_object("changed", (kind, namespace, &name), changed).await?;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        assert_eq!(self.host.function().calls().await?.to_bits(), calls.to_bits(), "the function was called");
        assert_eq!(self.get(self.flavour.release)?["spec"], release["spec"]);

        self.annotate("crossplane.io/paused-")?;
        let has_it = |release: &Value| release["spec"]["forProvider"]["values"]["sync"].is_object();
        self.host.until_object("as the user wrote", self.flavour.release, has_it).await.map(drop)
    }

    /// The sidecar goes; the keys, by which there is still a backup, do not.
    async fn is_switched_off(&self) -> Result<()> {
        let secrets = self.secrets()?;
        self.set(&json!({"backup": {"enabled": false}}))?;
        let is_off = |vcluster: &Value| vcluster["status"]["backup"]["phase"] == "Disabled";
        self.vcluster(is_off).await?;
        self.host
            .until("the pod is without sidecar", async || {
                Ok((names(&self.pod()?["containers"]) == ["syncer"]).then_some(()))
            })
            .await?;
        assert_eq!(self.secrets()?, secrets);
        self.set(&json!({"backup": {"enabled": true}}))?;
        self.host
            .until("the sidecar is back", async || {
                Ok((names(&self.pod()?["containers"]) == ["syncer", "vcluster-backup"]).then_some(()))
            })
            .await?;
        assert_eq!(self.secrets()?, secrets);
        Ok(())
    }

    /// A lost identity is told, never replaced; put back by who kept a copy, it is in force as before.
    async fn loses_its_identity(&self) -> Result<()> {
        let (kind, namespace, name) = self.flavour.identity;
        let kept = self.get(self.flavour.identity)?;
        self.host.api().kubectl(&["delete", kind, "-n", namespace, name])?;
        let told = self.vcluster(|vcluster| has(vcluster, "CredentialsReady", "False")).await?;
        assert!(told.to_string().contains(name), "{told}");
        assert!(
            self.host.api().get(kind, namespace, name)?.is_none(),
            "a new identity took the place of a lost one"
        );
        let keys: Vec<(String, Value)> =
            self.secrets()?.into_iter().map(|(name, (_, data))| (name, data)).collect();

        // As `kubectl get -o yaml` had it. The annotation by which Crossplane knows it must be there again: the XR still
        // refers to the Secret, and core composes nothing while one that it refers to has no such name.
        let mut copy = kept.clone();
        let metadata = copy["metadata"].as_object_mut().context("no metadata")?;
        metadata.retain(|field, _| ["name", "namespace", "annotations", "labels"].contains(&field.as_str()));
        self.host.api().apply(&[copy])?;
        self.vcluster(|vcluster| has(vcluster, "CredentialsReady", "True") && has(vcluster, "Ready", "True"))
            .await?;
        for (name, data) in keys {
            assert_eq!(self.secrets()?[&name].1, data, "{name}");
        }
        Ok(())
    }

    /// What the user wrote, once it is so.
    async fn vcluster(&self, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
        self.host.until_object("as it should be", self.flavour.vcluster, is_so).await
    }

    /// The XR: what the user wrote, or what Crossplane made of the claim.
    fn xr(&self) -> Result<(&'static str, &'static str, String)> {
        let (kind, namespace, name) = self.flavour.vcluster;
        match self.get(self.flavour.vcluster)?["spec"]["resourceRef"]["name"].as_str() {
            Some(name) => Ok(("xvclusters.vcluster-backup.io", "default", name.to_owned())),
            None => Ok((kind, namespace, name.to_owned())),
        }
    }

    /// Every composed Secret: its version and what is in it. The copy of the identity that the init container looks for
    /// is none of them: it goes with the container, and comes back with it.
    fn secrets(&self) -> Result<BTreeMap<String, (Value, Value)>> {
        let listed = self.host.api().kubectl(&[
            "get",
            "secrets",
            "-A",
            "-l",
            "crossplane.io/composite",
            "-o",
            "json",
        ])?;
        let listed: Value = serde_json::from_str(&listed)?;
        let found = listed["items"].as_array().context("no list")?.iter().filter_map(|secret| {
            let metadata = &secret["metadata"];
            let is_handed_over =
                metadata["name"].as_str().is_some_and(|name| name.ends_with("-backup-restore"));
            let name = format!("{}/{}", metadata["namespace"], metadata["name"]);
            (!is_handed_over).then(|| (name, (metadata["resourceVersion"].clone(), secret["data"].clone())))
        });
        Ok(found.collect())
    }

    /// The pod that Helm has installed.
    fn pod(&self) -> Result<Value> {
        let mut set = self.get(("statefulset", self.flavour.home, "dev"))?;
        Ok(set["spec"]["template"]["spec"].take())
    }

    fn get(&self, (kind, namespace, name): Object) -> Result<Value> {
        let found = self.host.api().get(kind, namespace, name)?;
        found.with_context(|| format!("there is no {kind} {namespace}/{name}"))
    }

    fn annotate(&self, annotation: &str) -> Result<()> {
        let (kind, namespace, name) = self.xr()?;
        let annotate = ["annotate", "--overwrite", kind, "-n", namespace, &name, annotation];
        self.host.api().kubectl(&annotate).map(drop)
    }

    /// The user changes the spec.
    fn set(&self, spec: &Value) -> Result<()> {
        let (kind, namespace, name) = self.flavour.vcluster;
        let patch = json!({"spec": spec}).to_string();
        let patch = ["patch", kind, "-n", namespace, name, "--type=merge", "-p", &patch];
        self.host.api().kubectl(&patch).map(drop)
    }

    async fn called_after(&self, calls: f64) -> Result<()> {
        let look = async || Ok((self.host.function().calls().await? > calls).then_some(()));
        self.host.until("the function is called", look).await
    }
}

fn names(containers: &Value) -> Vec<String> {
    let all = containers.as_array().into_iter().flatten();
    all.filter_map(|container| Some(container["name"].as_str()?.to_owned())).collect()
}

fn secret(namespace: &str, name: &str, entries: &[(&str, &str)]) -> Value {
    let data: BTreeMap<&str, String> = entries.iter().map(|(key, text)| (*key, base64(text))).collect();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "data": data})
}

/// The bucket is the platform's: no provider of buckets can be had.
fn existing_storage(step: &mut Value) {
    step["input"]["storage"] = json!({
        "endpoint": "http://127.0.0.1:9000",
        "provisioner": "Existing",
        "existing": {"bucket": "backups", "secretRef": {"namespace": NAMESPACE, "name": "platform-s3"}},
    });
}
