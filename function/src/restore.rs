//! A **restore** as the user asks for it: to one point, done once per id.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::check;
use crate::condition::{Kind, Reason};
use crate::fatal::Fatal;
use crate::reference::LocalSecretRef;
use crate::schema;

/// What the user asks for.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.latest) && self.latest, has(self.at), has(self.revision), has(self.pin)].filter(point, point).size() == 1",
    "message": "give exactly one of at, revision, pin, or latest set to true",
}]))]
pub struct Restore {
    /// Names the restore; another id is another restore.
    #[schemars(with = "schema::RestoreId")]
    pub id: String,
    /// The newest point.
    #[serde(default)]
    pub latest: bool,
    /// The newest point at or before this time.
    #[schemars(with = "Option<schema::Moment>")]
    pub at: Option<String>,
    /// This Kubernetes revision (resourceVersion).
    #[schemars(range(min = 1))]
    pub revision: Option<u64>,
    /// The point pinned under this name.
    #[schemars(with = "Option<schema::PinName>")]
    pub pin: Option<String>,
    /// Another cluster's backup, to make a clone of it.
    pub from: Option<Source>,
}

/// Another cluster's backup.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.name) != has(self.bucket)",
        "message": "name the source by name (and namespace), or by bucket and secretRef",
    },
    {
        "rule": "has(self.bucket) ? has(self.secretRef) && !has(self.__namespace__) : !has(self.prefix) && !has(self.secretRef)",
        "message": "bucket needs secretRef and may have a prefix; name may have a namespace",
    },
]))]
pub struct Source {
    /// A cluster of the platform by its name.
    #[schemars(with = "Option<schema::Label>")]
    pub name: Option<String>,
    /// The namespace of that cluster, which its spec.backup.shareWith must open to this one's; the own if left out.
    #[schemars(with = "Option<schema::Label>")]
    pub namespace: Option<String>,
    /// Any backup on the same S3 server, by the bucket that it is in.
    #[schemars(with = "Option<schema::BucketName>")]
    pub bucket: Option<String>,
    /// Folder of the backup in that bucket.
    #[schemars(with = "Option<schema::Folder>")]
    pub prefix: Option<String>,
    /// Secret beside this object with what opens it: age-identity, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    pub secret_ref: Option<LocalSecretRef>,
}

impl Source {
    /// Checks that it is one Vcluster, or one bucket with its own keys: the platform's open more than this user's.
    fn check(&self) -> Result<(), Fatal> {
        let field = "spec.restore.from";
        let refuse = |cause: &str| {
            let way_out = "give name (and namespace) of a Vcluster, or bucket (and prefix) and secretRef";
            Err(Fatal::new(field, cause, way_out))
        };
        match (&self.name, &self.namespace, &self.bucket, &self.prefix, &self.secret_ref) {
            (Some(name), namespace, None, None, None) => {
                check::label(&format!("{field}.name"), name)?;
                namespace.as_ref().map_or(Ok(()), |it| check::label(&format!("{field}.namespace"), it))
            }
            (None, None, Some(bucket), prefix, Some(secret)) => {
                check::bucket(&format!("{field}.bucket"), bucket)?;
                check::subdomain(&format!("{field}.secretRef.name"), &secret.name)?;
                prefix.as_ref().map_or(Ok(()), |it| check::folder(&format!("{field}.prefix"), it))
            }
            (None, _, Some(_), _, None) => {
                refuse("a bucket is read with keys of your own, and it names none")
            }
            (None, _, None, _, _) => refuse("it names neither a Vcluster nor a bucket"),
            _ => refuse("it names a Vcluster and says where the backup is, which is one too many"),
        }
        .map_err(|fatal| fatal.shown_as(Kind::Restored, Reason::Refused))
    }
}

impl Restore {
    /// Checks that one point is named.
    pub fn check(&self) -> Result<(), Fatal> {
        if self.id.is_empty() || self.id.len() > 128 || !self.id.chars().all(|c| c.is_ascii_graphic()) {
            return Err(Fatal::new(
                "spec.restore.id",
                "it is not 1 to 128 visible characters",
                "name the restore, such as 2026-11-22-oops",
            ));
        }
        let points = usize::from(self.latest)
            + usize::from(self.at.is_some())
            + usize::from(self.revision.is_some())
            + usize::from(self.pin.is_some());
        if points != 1 {
            return Err(Fatal::new(
                "spec.restore",
                format_args!("it names {points} points"),
                "give exactly one of at, revision, pin, or latest: true",
            ));
        }
        if self.at.as_ref().is_some_and(|at| at.parse::<Timestamp>().is_err()) {
            return Err(Fatal::new(
                "spec.restore.at",
                "it is no RFC 3339 time",
                "write it as \"2026-11-22T14:05:00Z\", in quotes",
            ));
        }
        if self.revision == Some(0) {
            return Err(Fatal::new("spec.restore.revision", "revisions begin at 1", "name a later one"));
        }
        if let Some(pin) = &self.pin {
            check::pin("spec.restore.pin", pin)?;
        }
        self.from.as_ref().map_or(Ok(()), Source::check)
    }

    /// The point in a few words.
    pub fn point(&self) -> String {
        match (&self.at, self.revision, &self.pin) {
            (Some(at), ..) => format!("at {at}"),
            (_, Some(revision), _) => format!("revision {revision}"),
            (.., Some(pin)) => format!("pin {pin}"),
            _ => "latest".into(),
        }
    }

    /// The request as the agent reads it.
    pub fn config(&self) -> Value {
        let mut config = Map::new();
        config.insert("id".into(), json!(self.id));
        if self.latest {
            config.insert("latest".into(), json!(true));
        }
        if let Some(at) = &self.at {
            config.insert("at".into(), json!(at));
        }
        if let Some(revision) = self.revision {
            config.insert("revision".into(), json!(revision));
        }
        if let Some(pin) = &self.pin {
            config.insert("pin".into(), json!(pin));
        }
        Value::Object(config)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn check(fields: Value) -> Result<Value, String> {
        let restore: Restore = serde_json::from_value(fields).map_err(|error| error.to_string())?;
        restore.check().map_err(|fatal| fatal.to_string())?;
        Ok(restore.config())
    }

    #[test]
    fn one_point_goes_to_the_agent_as_it_was_asked_for() {
        for point in [
            json!({"latest": true}),
            json!({"at": "2026-11-22T14:05:00Z"}),
            json!({"revision": 4711}),
            json!({"pin": "before-migration"}),
        ] {
            let mut asked = point;
            asked["id"] = json!("oops");
            assert_eq!(check(asked.clone()).unwrap(), asked);
        }
    }

    fn from(source: Value) -> Value {
        let mut asked = json!({"id": "a", "latest": true});
        asked["from"] = source;
        asked
    }

    #[test]
    fn another_backup_is_a_vclusters_or_a_bucket_with_keys() {
        for source in [
            json!({"name": "dev"}),
            json!({"name": "dev", "namespace": "team-b"}),
            json!({"bucket": "bucket", "secretRef": {"name": "s"}}),
            json!({"bucket": "bucket", "prefix": "team-a/dev", "secretRef": {"name": "s"}}),
        ] {
            assert!(check(from(source)).is_ok());
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_path() {
        for (asked, field) in [
            (json!({"id": "a"}), "spec.restore: it names 0 points"),
            (json!({"id": "a", "latest": false}), "spec.restore: it names 0 points"),
            (json!({"id": "a", "latest": true, "pin": "b"}), "spec.restore: it names 2 points"),
            (json!({"id": "", "latest": true}), "spec.restore.id: "),
            (json!({"id": "a b", "latest": true}), "spec.restore.id: "),
            (json!({"id": "a", "at": "yesterday"}), "spec.restore.at: "),
            (json!({"id": "a", "revision": 0}), "spec.restore.revision: "),
            (json!({"id": "a", "pin": "/"}), "spec.restore.pin: "),
            (from(json!({})), "spec.restore.from: it names neither"),
            (from(json!({"namespace": "n"})), "spec.restore.from: it names neither"),
            (from(json!({"secretRef": {"name": "s"}})), "spec.restore.from: it names neither"),
            (from(json!({"bucket": "bucket"})), "spec.restore.from: a bucket is read with keys"),
            (
                from(json!({"bucket": "bucket", "prefix": "p"})),
                "spec.restore.from: a bucket is read with keys",
            ),
            (from(json!({"name": "dev", "bucket": "bucket"})), "spec.restore.from: it names a Vcluster and"),
            (
                from(json!({"name": "dev", "secretRef": {"name": "s"}})),
                "spec.restore.from: it names a Vcluster and",
            ),
            (from(json!({"name": "../x"})), "spec.restore.from.name: "),
            (from(json!({"name": "dev", "namespace": "*"})), "spec.restore.from.namespace: "),
            (from(json!({"bucket": "b/c", "secretRef": {"name": "s"}})), "spec.restore.from.bucket: "),
            (
                from(json!({"bucket": "bucket", "secretRef": {"name": "."}})),
                "spec.restore.from.secretRef.name: ",
            ),
            (
                from(json!({"bucket": "bucket", "prefix": "a\nb", "secretRef": {"name": "s"}})),
                "spec.restore.from.prefix: ",
            ),
            (
                json!({"id": "a", "from": {"secretRef": {"name": "s", "namespace": "n"}}}),
                "unknown field `namespace`",
            ),
        ] {
            let message = check(asked).unwrap_err();
            assert!(message.starts_with(field), "{message}");
        }
    }
}
