//! **Names** of all that is composed. They follow from the base name alone, the claim's name and namespace,
//! so that they are the same when a host cluster is rebuilt.

use ring::digest::{SHA256, digest};

use crate::check::{self, LABEL};
use crate::condition::{Kind, Reason};
use crate::fatal::Fatal;
use crate::glob;
use crate::input::{Input, Keeping};
use crate::xr::{Flavour, Xr};

/// Under which keys composed resources stand in observed and desired state. Never change one: the object under
/// the old key would be deleted.
pub mod key {
    /// The Helm release.
    pub const CLUSTER: &str = "vcluster";
    /// The Secret with the identity.
    pub const IDENTITY: &str = "backup-identity";
    /// The Secret that the sidecar gets.
    pub const KEYS: &str = "backup-keys";
    /// The ConfigMap that the agent reads.
    pub const CONFIG: &str = "backup-config";
    /// The Secret with the identity, while a restore needs it.
    pub const RESTORE_KEY: &str = "backup-restore-key";
    /// The bucket.
    pub const BUCKET: &str = "backup-bucket";
    /// What the user may do.
    pub const POLICY: &str = "backup-policy";
    /// The S3 user.
    pub const USER: &str = "backup-user";
    /// The cluster in Rancher.
    pub const RANCHER_CLUSTER: &str = "rancher-cluster";
    /// Rancher's registration token for it.
    pub const RANCHER_TOKEN: &str = "rancher-token";
    /// The Secret by which the import gets Rancher's agent.
    pub const RANCHER_IMPORT_KEY: &str = "rancher-import-key";
    /// The import; a digest of what matters to it follows, so that another one replaces it.
    pub const RANCHER_IMPORT: &str = "rancher-import";
    /// The `rancher-cluster` chart, where the platform uses that instead.
    pub const RANCHER_RELEASE: &str = "rancher-release";
    /// The release of the chart that makes bucket and user (`S3Register`).
    pub const REGISTER: &str = "backup-register";
    /// The drill.
    pub const VERIFY: &str = "backup-verify";
    /// The Secret that it gets.
    pub const VERIFY_KEYS: &str = "backup-verify-keys";
    /// The service account that it runs as, if it proves by it who it is.
    pub const VERIFY_ACCOUNT: &str = "backup-verify-account";
    /// The platform's job that applies retention.
    pub const PRUNE: &str = "backup-prune";
    /// The Secret that it gets.
    pub const PRUNE_KEYS: &str = "backup-prune-keys";
    /// How keys of Usages begin; the key of what is used follows.
    pub const PROTECTION: &str = "protection-";

    /// The Secret with the identity of a rotation.
    pub fn identity(rotation: usize) -> String {
        super::numbered(IDENTITY, rotation)
    }
}

/// Under which keys required resources are asked for.
pub mod required {
    /// The Secret with the identity.
    pub const IDENTITY: &str = "backup-identity";
    /// The ConfigMap that the agent reports in.
    pub const REPORT: &str = "backup-status";
    /// The platform's Secret with the S3 credentials (`Existing`).
    pub const STORAGE: &str = "backup-storage";
    /// The Secret of the S3 user that provider-minio made, for the drill.
    pub const USER_KEYS: &str = "backup-user-keys";
    /// The Secret that the s3-register chart made.
    pub const REGISTERED: &str = "backup-registered";
    /// The platform's Secret of somebody who may delete.
    pub const PRUNE: &str = "backup-prune";
    /// The platform's Secret with the S3 server's certificate.
    pub const CERTIFICATE: &str = "backup-certificate";
    /// The user's Secret with a saved identity.
    pub const SAVED: &str = "backup-identity-saved";
    /// What a restore is from: another Vcluster, or a Secret of the user's.
    pub const SOURCE: &str = "restore-source";
    /// The Secret with the S3 credentials of another Vcluster.
    pub const SOURCE_S3: &str = "restore-source-s3";
    /// The Secret with the kubeconfig.
    pub const KUBECONFIG: &str = "kubeconfig";

    /// The Secret with the identity of a rotation; composed under the same key.
    pub fn identity(rotation: usize) -> String {
        super::numbered(IDENTITY, rotation)
    }

    /// That of another Vcluster.
    pub fn source_identity(rotation: usize) -> String {
        super::numbered("restore-source-identity", rotation)
    }
}

/// The first identity has the plain name, each later one its number.
fn numbered(name: &str, rotation: usize) -> String {
    if rotation == 0 { name.to_owned() } else { format!("{name}-{rotation}") }
}

/// How namespaces begin that are made for claims; each holds one vcluster.
const HOME: &str = "vcluster-";
/// Longest name of a Helm release.
const RELEASE: usize = 53;
/// Longest name of a CronJob: its jobs' names have eleven characters more.
const CRON_JOB: usize = 52;

/// Where an object lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// All names of one vcluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The Helm release, and the vcluster.
    pub release: String,
    /// The namespace that it is installed into.
    pub namespace: String,
    /// The `Release` object.
    pub release_object: String,
    /// Bucket, user and policy on the S3 server, and the objects that make them.
    pub bucket: String,
    /// Whether no other namespace and name have this bucket: `a`/`b-c` and `a-b`/`c` share one.
    pub is_bucket_unique: bool,
    /// The cluster's folder in a shared bucket.
    pub prefix: String,
    /// The Secret with the identity, the first one if there are several.
    pub identity: Place,
    /// Whose backup it is, as the agent's `--owner` takes it.
    pub owner: String,
}

impl Names {
    /// The names of an XR's vcluster; refuses names that cannot be, and a namespace that is not allowed.
    pub fn of(xr: &Xr, input: &Input) -> Result<Self, Fatal> {
        let name = xr.name.clone();
        check::label("metadata.name", &name)?;
        if name.len() > RELEASE {
            return Err(Fatal::new(
                "metadata.name",
                format_args!("it has {} characters and a Helm release takes {RELEASE}", name.len()),
                "choose a shorter name",
            ));
        }
        let (joined, folder) = match &xr.namespace {
            Some(namespace) => (format!("{namespace}-{name}"), namespace.as_str()),
            // No namespace is called so: nobody's claims come to lie in this folder.
            None => (name.clone(), "_cluster"),
        };
        let home = match (xr.flavour, &xr.namespace) {
            (Flavour::Namespaced, Some(namespace)) => namespace.clone(),
            _ => cut(format!("{HOME}{joined}"), LABEL),
        };
        let namespace = choose_namespace(xr, input, home)?;
        // Named after where it is installed, not after who asks: should two claims have one namespace (`a`/`b-c`
        // and `a-b`/`c`, or by `spec.namespace`), the second `Release` belongs to another XR and Crossplane
        // refuses it. Helm would let it take over the first one's vcluster.
        let release_object = match xr.flavour {
            Flavour::Namespaced => name.clone(),
            Flavour::ClusterScoped if namespace.starts_with(HOME) => namespace.clone(),
            Flavour::ClusterScoped => format!("{namespace}.{name}"),
        };
        let identity = identity_place(xr, input, &namespace);
        let owner = match &xr.uid {
            Some(uid) => format!("{namespace}/{name}/{uid}"),
            None => format!("{namespace}/{name}"),
        };
        Ok(Self {
            bucket: cut(format!("vcb-{joined}"), LABEL),
            is_bucket_unique: joined.matches('-').count() == usize::from(xr.namespace.is_some()),
            prefix: format!("{folder}/{name}"),
            release: name,
            namespace,
            release_object,
            identity,
            owner,
        })
    }

    /// An object beside the vcluster: its name and `suffix`.
    pub fn beside(&self, suffix: &str) -> Place {
        Place { name: format!("{}{suffix}", self.release), namespace: self.namespace.clone() }
    }

    /// The Secret with the identity of a rotation.
    pub fn identity_of(&self, rotation: usize) -> Place {
        Place { name: numbered(&self.identity.name, rotation), namespace: self.identity.namespace.clone() }
    }

    /// The Secret that the sidecar gets.
    pub fn keys(&self) -> Place {
        self.beside("-backup")
    }

    /// The ConfigMap that the agent reads.
    pub fn config(&self) -> Place {
        self.beside("-backup")
    }

    /// An object of the backup beside the identity, such as `verify`.
    pub fn beside_identity(&self, suffix: &str) -> Place {
        let base = self.identity.name.trim_end_matches("-identity");
        Place { name: cut(format!("{base}-{suffix}"), CRON_JOB), namespace: self.identity.namespace.clone() }
    }

    /// The Helm release of the s3-register chart.
    pub fn register(&self) -> String {
        cut(self.bucket.clone(), RELEASE)
    }

    /// The Secret that the S3 user's keys are written to.
    pub fn user_keys(&self) -> Place {
        self.beside("-backup-s3")
    }

    /// The Secret with the identities that the init container looks in, and with the keys to another's bucket.
    pub fn restore_key(&self) -> Place {
        self.beside("-backup-restore")
    }

    /// The ConfigMap that the agent reports in.
    pub fn report(&self) -> Place {
        self.beside("-backup-status")
    }

    /// The Secret with the kubeconfig (vcluster writes it).
    pub fn kubeconfig(&self) -> String {
        format!("vc-{}", self.release)
    }
}

fn choose_namespace(xr: &Xr, input: &Input, home: String) -> Result<String, Fatal> {
    let Some(asked) = xr.spec.namespace.as_ref().filter(|asked| **asked != home) else { return Ok(home) };
    let refuse = |cause: String, way_out: String| {
        Err(Fatal::new("spec.namespace", cause, way_out)
            .shown_as(Kind::ClusterReady, Reason::NamespaceDenied))
    };
    check::label("spec.namespace", asked)?;
    if xr.flavour == Flavour::Namespaced {
        return refuse(
            "a namespaced XR cannot compose into another namespace".into(),
            format!("take it out, or make the XR in namespace {asked}"),
        );
    }
    if !input.helm.allowed_namespaces.iter().any(|pattern| glob::admits(pattern, asked)) {
        return refuse(
            format!("the platform does not allow namespace {asked}"),
            format!(
                "take it out to be installed into {home}, or ask the platform to add it to helm.allowedNamespaces"
            ),
        );
    }
    if *asked == input.encryption.key_namespace {
        return refuse(
            format!("{asked} keeps the identities, which the vcluster's pod could read there"),
            "choose another namespace".into(),
        );
    }
    Ok(asked.clone())
}

/// Identities of claims lie in one namespace: a dot, which no namespace has, keeps two teams' `dev` apart.
fn identity_place(xr: &Xr, input: &Input, namespace: &str) -> Place {
    let plain = format!("{}-backup-identity", xr.name);
    if xr.flavour == Flavour::Namespaced || input.encryption.identity == Keeping::InNamespace {
        return Place { name: plain, namespace: namespace.to_owned() };
    }
    let name = match &xr.namespace {
        Some(claims) => format!("{claims}.{plain}"),
        None => plain,
    };
    Place { name, namespace: input.encryption.key_namespace.clone() }
}

/// A name as it is, if it fits; else its beginning and a digest of all of it.
fn cut(name: String, limit: usize) -> String {
    if name.len() <= limit {
        return name;
    }
    let tail = short_digest(&name);
    // Names are ASCII by now, so every index is a boundary.
    let head = name[..limit - tail.len() - 1].trim_end_matches(['-', '.']);
    format!("{head}-{tail}")
}

/// Ten characters that stand for a text.
pub fn short_digest(text: &str) -> String {
    hex::encode(&digest(&SHA256, text.as_bytes()).as_ref()[..5])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn input(fields: serde_json::Value) -> Input {
        serde_json::from_value(fields).unwrap()
    }

    fn claimed(namespace: &str, name: &str) -> Xr {
        let claim = json!({"name": name, "namespace": namespace});
        Xr::parse(&json!({"metadata": {"name": "x-7k2p"}, "spec": {"claimRef": claim}})).unwrap()
    }

    #[test]
    fn two_claims_that_share_a_namespace_share_the_release_object_too() {
        let one = Names::of(&claimed("a", "b-c"), &Input::default()).unwrap();
        let other = Names::of(&claimed("a-b", "c"), &Input::default()).unwrap();
        assert_eq!(one.namespace, other.namespace);
        assert_eq!(one.release_object, other.release_object);
        assert_ne!(one.identity, other.identity);
        assert_ne!(one.prefix, other.prefix);
    }

    #[test]
    fn a_bucket_that_two_could_have_is_nobodys_alone() {
        for (namespace, name, unique) in
            [("a", "b", true), ("a", "b-c", false), ("a-b", "c", false), ("team-a", "dev", false)]
        {
            let names = Names::of(&claimed(namespace, name), &Input::default()).unwrap();
            assert_eq!(names.is_bucket_unique, unique, "{namespace}/{name}");
        }
    }

    #[test]
    fn two_claims_of_one_name_that_choose_a_namespace_share_the_release_object() {
        let input = input(json!({"helm": {"allowedNamespaces": ["*"]}}));
        let of = |namespace: &str, name: &str, chosen: Option<&str>| {
            let mut xr = claimed(namespace, name);
            xr.spec.namespace = chosen.map(str::to_owned);
            Names::of(&xr, &input).unwrap().release_object
        };
        assert_eq!(of("team-a", "dev", Some("shared")), "shared.dev");
        assert_eq!(of("team-a", "dev", Some("shared")), of("team-b", "dev", Some("shared")));
        assert_ne!(of("team-a", "dev", Some("shared")), of("team-b", "test", Some("shared")));
        // The namespace that is made for another claim.
        assert_eq!(of("team-a", "dev", None), "vcluster-team-a-dev");
        assert_eq!(of("team-a", "dev", None), of("team-b", "dev", Some("vcluster-team-a-dev")));
    }

    #[test]
    fn names_that_are_cut_stay_apart() {
        let long = |end: &str| cut(format!("vcb-{}{end}", "n".repeat(80)), LABEL);
        assert_eq!(long("a").len(), LABEL);
        assert_ne!(long("a"), long("b"));
        assert_eq!(cut("vcb-a".into(), LABEL), "vcb-a");
        assert!(!cut(format!("{}-{}", "n".repeat(51), "-".repeat(20)), LABEL).contains("--"));
        let names = Names::of(&claimed(&"n".repeat(63), &"m".repeat(53)), &Input::default()).unwrap();
        assert_eq!((names.register().len(), names.beside_identity("verify").name.len()), (RELEASE, CRON_JOB));
    }

    #[test]
    fn another_namespace_needs_the_platforms_word() {
        let mut xr = claimed("team-a", "dev");
        xr.spec.namespace = Some("clusters-a".into());
        let denied = Names::of(&xr, &Input::default()).unwrap_err();
        assert_eq!(denied.reason(), Reason::NamespaceDenied);
        let names =
            Names::of(&xr, &input(json!({"helm": {"allowedNamespaces": ["x", "clusters-?"]}}))).unwrap();
        assert_eq!(names.namespace, "clusters-a");
        assert_eq!(names.identity.to_string(), "crossplane-system/team-a.dev-backup-identity");
        assert_eq!(names.beside_identity("verify").to_string(), "crossplane-system/team-a.dev-backup-verify");
        xr.spec.namespace = Some("vcluster-team-a-dev".into());
        assert!(Names::of(&xr, &Input::default()).is_ok());
    }
}
