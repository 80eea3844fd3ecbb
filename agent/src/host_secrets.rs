//! The **host Secrets**: the host namespace's copies of what a restore brings back beside the database. vcluster starts
//! on them and not on the files: the token of a k3s comes from `vc-k3s-<release>` (pkg/k3s), and what `<release>-certs`
//! holds is written over `/data/pki` (pkg/certs). So a restored control plane is itself again only if they match.
//!
//! ```text
//!  archive ──► files on the volume ──► Secret ──(vcluster starts)──► files on the volume
//! ```
//!
//! | the Secret | what is done | if that is refused |
//! |---|---|---|
//! | is not there | it is made | the restore goes on: vcluster makes it of the files at its start |
//! | holds the same | nothing | |
//! | holds others, or cannot be looked at | it is made to match | the restore fails: vcluster would bury the files |
//!
//! An API server that does not answer is waited for a while, then the restore fails: vcluster does not start without it
//! either. All this comes before the database is placed, so that what failed begins anew with the next try.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cause;
use crate::cluster::{Cluster, MANAGER};
use crate::files::Unpacked;

/// vcluster's files of a PKI, those of `certMap` in pkg/certs (0.25 to 0.36; older ones take them as extra files). In
/// the Secret `/` is `-`.
const PKI_FILES: [&str; 29] = [
    "admin.conf",
    "apiserver-etcd-client.crt",
    "apiserver-etcd-client.key",
    "apiserver-kubelet-client.crt",
    "apiserver-kubelet-client.key",
    "apiserver.crt",
    "apiserver.key",
    "ca.crt",
    "ca.key",
    "client-ca.crt",
    "client-ca.key",
    "controller-manager.conf",
    "etcd/ca.crt",
    "etcd/ca.key",
    "etcd/healthcheck-client.crt",
    "etcd/healthcheck-client.key",
    "etcd/peer.crt",
    "etcd/peer.key",
    "etcd/server.crt",
    "etcd/server.key",
    "front-proxy-ca.crt",
    "front-proxy-ca.key",
    "front-proxy-client.crt",
    "front-proxy-client.key",
    "sa.key",
    "sa.pub",
    "scheduler.conf",
    "server-ca.crt",
    "server-ca.key",
];

/// Without it there is no PKI to match: a part of one must not be mixed with another.
const PKI_ROOT: &str = "ca.key";

const TOKEN_KEY: &str = "token";

/// How long an API server that does not answer is waited for; the kubelet starts `ensure` again then.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often it is asked meanwhile.
const PAUSE: Duration = Duration::from_secs(2);

/// Why a Secret does not match what was restored.
#[derive(Debug, thiserror::Error)]
pub enum HostSecretError {
    /// A file that was just restored is gone again.
    #[error("cannot read {path}, which was just restored: check the volume, then restore again")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The API server says no.
    #[error(
        "Secret {secret} cannot be {step} ({problem}), and vcluster would start on what it holds in place of what was \
         restored: let the pod's Role get, create and patch Secrets, or put it right by hand (docs/restore.md, Token \
         and certificates); the database was not restored yet, the next start tries again"
    )]
    Refused {
        /// Namespace and name.
        secret: String,
        /// What was tried.
        step: &'static str,
        /// The answer: code and reason. Not its message, which may quote what was sent.
        problem: String,
    },
    /// The API server does not answer.
    #[error(
        "the host cluster's API server does not answer ({problem}), so Secret {secret} cannot be compared with what was \
         restored: check the pod's network; the database was not restored yet, the next start tries again"
    )]
    Unreachable {
        /// Namespace and name.
        secret: String,
        /// What came in place of an answer.
        problem: String,
    },
}

/// A Secret as the restored files want it. No Debug: it holds keys.
struct Wanted {
    name: String,
    labels: Option<BTreeMap<String, String>>,
    /// All keys that count; those that were not restored must not be in the Secret.
    data: BTreeMap<String, Option<ByteString>>,
}

impl Wanted {
    /// The Secrets that belong to what was restored on a volume.
    fn of(release: &str, volume: &Path, restored: &HashSet<&Path>) -> Result<Vec<Self>, HostSecretError> {
        let read = |path: PathBuf| -> Result<Option<ByteString>, HostSecretError> {
            if !restored.contains(path.as_path()) {
                return Ok(None);
            }
            let read = std::fs::read(&path).map_err(|source| HostSecretError::Read { path, source })?;
            Ok(Some(ByteString(read)))
        };
        let mut all = Vec::new();
        if let Some(file) = read(volume.join("server/token"))? {
            let token = ByteString(password(&file.0).to_vec());
            all.push(Self {
                name: format!("vc-k3s-{release}"),
                labels: None,
                data: BTreeMap::from([(TOKEN_KEY.to_owned(), Some(token))]),
            });
        }
        let pki = volume.join("pki");
        if restored.contains(pki.join(PKI_ROOT).as_path()) {
            let data = PKI_FILES
                .iter()
                .map(|file| Ok((file.replace('/', "-"), read(pki.join(file))?)))
                .collect::<Result<_, HostSecretError>>()?;
            let labels = [("app", "vcluster"), ("vcluster-name", release)];
            all.push(Self {
                name: format!("{release}-certs"),
                labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
                data,
            });
        }
        Ok(all)
    }

    fn matches(&self, there: &Secret) -> bool {
        self.data.iter().all(|(key, wanted)| {
            let there = there.data.as_ref().and_then(|data| data.get(key));
            match (wanted, there) {
                // A Secret may hold the token as its file does.
                (Some(wanted), Some(there)) if key == TOKEN_KEY => wanted.0 == password(&there.0),
                (wanted, there) => wanted.as_ref() == there,
            }
        })
    }

    fn secret(&self) -> Secret {
        let data = self.data.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
        let mut secret = Secret { data: Some(data.collect()), ..Secret::default() };
        secret.type_ = Some("Opaque".to_owned());
        secret.metadata.name = Some(self.name.clone());
        secret.metadata.labels.clone_from(&self.labels);
        secret
    }

    /// As a merge patch: null takes a key away, and labels, owners and foreign keys stay.
    fn patch(&self) -> Value {
        json!({"data": self.data})
    }
}

/// The password in a k3s token, `K10<hash of the CA>::<user>:<password>`; one of another form is all password.
fn password(token: &[u8]) -> &[u8] {
    let token = token.trim_ascii();
    let Some(token) = token.strip_prefix(b"K10") else { return token };
    let Some(user) = token.windows(2).position(|pair| pair == b"::") else { return token };
    let named = &token[user + 2..];
    named.iter().position(|byte| *byte == b':').map_or(named, |colon| &named[colon + 1..])
}

/// The Secrets of one release, as the pod may use them.
#[derive(Clone, Debug)]
pub struct HostSecrets {
    api: Api<Secret>,
    namespace: String,
    release: String,
    volume: PathBuf,
    patience: Duration,
}

/// What became of one Secret.
enum Outcome {
    Matched,
    Made,
    Changed,
    /// And why.
    NotMade(String),
}

impl HostSecrets {
    /// Those of the release whose database lies, or will lie, at `database`.
    pub fn new(cluster: &Cluster, database: &Path) -> Self {
        Self {
            api: Api::namespaced(cluster.client.clone(), &cluster.namespace),
            namespace: cluster.namespace.clone(),
            release: cluster.release.clone(),
            volume: volume(database),
            patience: PATIENCE,
        }
    }

    /// Makes them match the files that were restored; what was changed, in words. Nothing without such files.
    pub async fn follow(&self, unpacked: &Unpacked) -> Result<Option<String>, HostSecretError> {
        let restored = unpacked.written.iter().chain(&unpacked.unchanged).map(PathBuf::as_path).collect();
        let mut told = Vec::new();
        for wanted in Wanted::of(&self.release, &self.volume, &restored)? {
            let secret = format!("{}/{}", self.namespace, wanted.name);
            match self.patiently(&wanted, &secret).await? {
                Outcome::Matched => {}
                Outcome::Made => told.push(format!("Secret {secret} was made of them")),
                Outcome::Changed => {
                    told.push(format!("Secret {secret} held others and was made to match"));
                }
                Outcome::NotMade(problem) => {
                    tracing::warn!(secret, problem, "the Secret could not be made of the restored files");
                    told.push(format!(
                        "Secret {secret} is missing and could not be made ({problem}): vcluster makes it of these \
                         files when it may; by hand: docs/restore.md, Token and certificates"
                    ));
                }
            }
        }
        Ok(if told.is_empty() { None } else { Some(told.join("; ")) })
    }

    async fn patiently(&self, wanted: &Wanted, secret: &str) -> Result<Outcome, HostSecretError> {
        let begin = tokio::time::Instant::now();
        loop {
            let (step, error) = match self.try_once(wanted).await {
                Ok(outcome) => return Ok(outcome),
                Err(failed) => failed,
            };
            let (secret, problem) = (secret.to_owned(), problem(&error));
            if !is_retryable(&error) {
                return Err(HostSecretError::Refused { secret, step, problem });
            }
            if begin.elapsed() >= self.patience {
                return Err(HostSecretError::Unreachable { secret, problem });
            }
            tracing::warn!(secret, problem, "the Secret cannot be {step} yet; it is tried again");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Looks, then writes if it must. The step that failed goes with the error.
    async fn try_once(&self, wanted: &Wanted) -> Result<Outcome, (&'static str, kube::Error)> {
        let at = |step: &'static str| move |error| (step, error);
        match self.api.get_opt(&wanted.name).await.map_err(at("looked at"))? {
            Some(there) if wanted.matches(&there) => Ok(Outcome::Matched),
            Some(_) => {
                let parameters =
                    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
                let patch = Patch::Merge(wanted.patch());
                let patched = self.api.patch(&wanted.name, &parameters, &patch).await;
                patched.map(|_| Outcome::Changed).map_err(at("changed"))
            }
            None => {
                let parameters =
                    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
                match self.api.create(&parameters, &wanted.secret()).await {
                    Ok(_) => Ok(Outcome::Made),
                    Err(error) if !is_retryable(&error) => Ok(Outcome::NotMade(problem(&error))),
                    Err(error) => Err(("made", error)),
                }
            }
        }
    }
}

/// The root of vcluster's volume, by the database: at its top in the k8s distro, in `server/db` in the k3s distro.
fn volume(database: &Path) -> PathBuf {
    let database = std::path::absolute(database).unwrap_or_else(|_| database.to_owned());
    let folder = database.parent().unwrap_or(Path::new("/"));
    let root = if folder.ends_with("server/db") { folder.ancestors().nth(2) } else { None };
    root.unwrap_or(folder).to_owned()
}

/// No answer, an overloaded server, or someone else who wrote meanwhile.
fn is_retryable(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 409 | 429 | 500..),
        _ => true,
    }
}

fn problem(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} {}", status.code, status.reason).trim_end().to_owned(),
        error => cause::chain(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn wanted(volume: &Path, files: &[(&str, &str)]) -> Vec<Wanted> {
        let paths: Vec<PathBuf> = files.iter().map(|(name, _)| volume.join(name)).collect();
        for (path, (_, content)) in paths.iter().zip(files) {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        Wanted::of("dev", volume, &paths.iter().map(PathBuf::as_path).collect()).unwrap()
    }

    fn secret(data: &[(&str, &str)]) -> Secret {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        Secret { data: Some(data.collect()), ..Secret::default() }
    }

    #[test]
    fn a_token_is_told_by_its_password() {
        for (token, expected) in [
            ("K10abc0::server:s3cret\n", "s3cret"),
            ("K10abc0::node:with:colons", "with:colons"),
            ("  plain\n", "plain"),
            ("K10abc0::lone", "lone"),
        ] {
            assert_eq!(password(token.as_bytes()), expected.as_bytes(), "{token:?}");
        }
    }

    #[test]
    fn the_volume_is_told_by_the_database() {
        for (database, expected) in
            [("/data/state.db", "/data"), ("/data/server/db/state.db", "/data"), ("/state.db", "/")]
        {
            assert_eq!(volume(Path::new(database)), Path::new(expected), "{database}");
        }
    }

    #[test]
    fn only_what_was_restored_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        // There, but not of this restore.
        for name in ["server/token", "pki/ca.key"] {
            std::fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(folder.path().join(name), "other").unwrap();
        }
        assert!(wanted(folder.path(), &[("pki/sa.key", "sa")]).is_empty(), "a PKI without its CA's key");
        let token = wanted(folder.path(), &[("server/token", "K10a::server:word")]);
        assert_eq!(token.iter().map(|wanted| &wanted.name).collect::<Vec<_>>(), ["vc-k3s-dev"]);
        assert!(token[0].matches(&secret(&[("token", "word")])));
        assert!(token[0].matches(&secret(&[("token", "K10b::server:word\n")])), "the same in another form");
        assert!(!token[0].matches(&secret(&[("token", "other")])));
        assert!(!token[0].matches(&Secret::default()));
    }

    #[test]
    fn a_pki_is_wanted_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let files = [("pki/ca.key", "ca"), ("pki/etcd/ca.key", "etcd"), ("pki/unknown", "x")];
        let [certs] = &wanted(folder.path(), &files)[..] else { panic!("one Secret") };
        assert_eq!(certs.name, "dev-certs");
        let made = certs.secret();
        assert_eq!(made.metadata.labels.as_ref().unwrap()["vcluster-name"], "dev");
        assert_eq!(made.data.as_ref().unwrap().keys().collect::<Vec<_>>(), ["ca.key", "etcd-ca.key"]);
        assert!(certs.matches(&made));
        // What vcluster does not know may stay; what belongs to another PKI may not.
        assert!(certs.matches(&secret(&[("ca.key", "ca"), ("etcd-ca.key", "etcd"), ("mine", "x")])));
        assert!(!certs.matches(&secret(&[("ca.key", "ca"), ("etcd-ca.key", "etcd"), ("sa.key", "x")])));
        let patch = certs.patch();
        assert_eq!(patch["data"]["ca.key"], "Y2E=");
        assert_eq!(patch["data"]["sa.key"], Value::Null);
        assert!(patch["data"].get("mine").is_none());
    }
}
