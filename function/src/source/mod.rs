//! The **source** of a restore that is from another backup than the cluster's own: where it lies, and all keys that
//! it takes. What is read for it is read with Crossplane's rights, so each way in asks first whose it is.

mod given;
mod shared;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::condition::Reason;
use crate::credentials::identity::Identity;
use crate::fatal::Fatal;
use crate::object::{entry, text};
use crate::report::Report;
use crate::response::Response;
use crate::subject::Subject;

/// Entries of the Secret that the init container gets, and the files that it reads them from.
pub const SOURCE_ACCESS_KEY: &str = "source-access-key-id";
/// The other half.
pub const SOURCE_SECRET_KEY: &str = "source-secret-access-key";
const FOLDER: &str = "/etc/vcluster-backup-identity";

/// Where a restore is from.
pub enum Source {
    /// The cluster's own backup, or no restore is to be done.
    Own,
    /// Crossplane has not looked for all of it yet.
    Unresolved,
    /// Something of it is not there; why, and what to do.
    Missing(Reason, String),
    /// Another backup.
    Found(Backup),
}

/// Another backup.
pub struct Backup {
    /// The bucket.
    pub bucket: String,
    /// Folder in it.
    pub prefix: Option<String>,
    /// What reads it.
    pub identities: Vec<Identity>,
    /// What opens the bucket; the agent's own if there are none.
    pub keys: Option<S3Keys>,
    /// Whose signatures its objects must bear; anybody's if nobody is known.
    pub signers: Vec<String>,
}

/// Credentials of a bucket.
pub struct S3Keys {
    /// `AWS_ACCESS_KEY_ID`.
    pub access: Zeroizing<Vec<u8>>,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret: Zeroizing<Vec<u8>>,
}

impl S3Keys {
    /// Those in a Secret; an error is the entry that is not there.
    fn of(secret: &Value) -> Result<Self, &'static str> {
        let field = |name| entry(secret, name).filter(|bytes| !bytes.is_empty()).ok_or(name);
        Ok(Self { access: field("AWS_ACCESS_KEY_ID")?, secret: field("AWS_SECRET_ACCESS_KEY")? })
    }
}

/// What is not there yet.
enum Gap {
    Unresolved,
    Missing(Reason, String),
    Refused(Fatal),
}

impl From<Fatal> for Gap {
    fn from(fatal: Fatal) -> Self {
        Self::Refused(fatal)
    }
}

impl Source {
    /// Asks for the source and looks what there is of it. Who may not read it is refused.
    pub fn resolve(subject: &Subject, report: &Report, response: &mut Response) -> Result<Self, Fatal> {
        let restore = subject.xr.spec.restore.as_ref();
        let Some((restore, asked)) = restore.and_then(|restore| Some((restore, restore.from.as_ref()?)))
        else {
            return Ok(Self::Own);
        };
        // By the status alone: what is asked for must not change while Crossplane is being asked.
        if subject.has_restored(&restore.id) {
            return Ok(Self::Own);
        }
        let is_pending = subject.pending_restore(report.restored_id.as_deref()).is_some();
        let found = match (&asked.name, &asked.bucket, &asked.secret_ref) {
            (Some(name), ..) => shared::find(subject, name, asked.namespace.as_deref(), is_pending, response),
            (None, Some(bucket), Some(secret)) => {
                given::find(subject, bucket, asked.prefix.as_deref(), secret, response)
            }
            // Refused by the spec's checks.
            _ => return Ok(Self::Own),
        };
        match found {
            _ if !is_pending => Ok(Self::Own),
            Ok(backup) => Ok(Self::Found(backup)),
            Err(Gap::Unresolved) => Ok(Self::Unresolved),
            Err(Gap::Missing(reason, message)) => Ok(Self::Missing(reason, message)),
            Err(Gap::Refused(fatal)) => Err(fatal),
        }
    }
}

impl Backup {
    /// As the agent reads it, in `restore.from`.
    pub fn config(&self) -> Value {
        let mut config = Map::from_iter([("bucket".to_owned(), json!(self.bucket))]);
        if let Some(prefix) = &self.prefix {
            config.insert("prefix".into(), json!(prefix));
        }
        if self.keys.is_some() {
            config.insert("accessKeyFile".into(), json!(format!("{FOLDER}/{SOURCE_ACCESS_KEY}")));
            config.insert("secretKeyFile".into(), json!(format!("{FOLDER}/{SOURCE_SECRET_KEY}")));
        }
        if !self.signers.is_empty() {
            config.insert("signer".into(), json!(self.signers.join(",")));
        }
        Value::Object(config)
    }
}

/// Whose signatures a user names, separated by commas: public keys, base64url of 32 bytes.
fn signers(text: &str) -> Option<Vec<String>> {
    let is_key = |key: &str| URL_SAFE_NO_PAD.decode(key).is_ok_and(|bytes| bytes.len() == 32);
    let keys: Vec<String> = text.split(',').map(|key| key.trim().to_owned()).collect();
    keys.iter().all(|key| is_key(key)).then_some(keys)
}

/// Whether a Secret was composed for a claim of this name: Crossplane labels what it composes.
fn is_claims(secret: &Value, name: &str, namespace: &str) -> bool {
    let label = |field: &str| {
        let label = format!("crossplane.io/claim-{field}");
        text(secret, &["metadata", "labels", &label]).map(str::to_owned)
    };
    label("name").as_deref() == Some(name) && label("namespace").as_deref() == Some(namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signers_are_public_keys_and_nothing_else() {
        let key = "ao-Qt_r3EO7t9rx_qJXMjHJWkp0jyE-2fr54UU3zul0";
        assert_eq!(signers(key), Some(vec![key.to_owned()]));
        assert_eq!(signers(&format!("{key}, {key}\n")).map(|keys| keys.len()), Some(2));
        for wrong in [
            "",
            "x",
            "AGE-SECRET-KEY-1QURSWPC8QURSWPC8QURSWPC8QURSWPC8QURSWPC8QURSWPC8QURSKMP32K",
            &format!("{key},"),
        ] {
            assert_eq!(signers(wrong), None, "{wrong}");
        }
    }
}
