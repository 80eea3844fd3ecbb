//! The **response**: what Crossplane shall compose and tell. Desired state is the full intent: what is left
//! out is deleted, so all that came with the request stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value, json};
use vcluster_backup_proto::v1::{
    self, Ready, Requirements, Resource, ResourceSelector, RunFunctionRequest, RunFunctionResponse, Severity,
    State, Target, resource_selector::Match,
};

use crate::condition::{Condition, Kind, Reason, Status};
use crate::fatal::Fatal;
use crate::names::Place;
use crate::object;

/// How long an answer is good for, unless the Input says otherwise.
const TTL: Duration = Duration::from_mins(1);

/// Longest message in bytes: what an event's note takes (Kubernetes' events.k8s.io/v1). A value that it quotes may be as
/// long as its writer likes.
const LONGEST: usize = 1024;

/// An answer in the making.
pub struct Response {
    answer: RunFunctionResponse,
    /// Desired state as it came.
    given: State,
    /// The XR as observed, with nothing but its conditions: what it said before.
    before: Value,
    conditions: BTreeMap<Kind, Condition>,
    own: BTreeSet<String>,
    withheld: bool,
    refused: bool,
}

fn remembered(xr: &prost_types::Struct) -> Value {
    json!({"status": {"conditions": object::decode_at(xr, &["status", "conditions"])}})
}

impl Response {
    /// An answer to `request` that keeps all that it brings.
    pub fn to(request: &RunFunctionRequest) -> Self {
        let composite = request.observed.as_ref().and_then(|state| state.composite.as_ref());
        let given = request.desired.clone().unwrap_or_default();
        let answer = RunFunctionResponse {
            meta: Some(v1::ResponseMeta {
                tag: request.meta.as_ref().map(|meta| meta.tag.clone()).unwrap_or_default(),
                ttl: prost_types::Duration::try_from(TTL).ok(),
            }),
            desired: Some(given.clone()),
            context: request.context.clone(),
            ..Default::default()
        };
        Self {
            answer,
            given,
            before: composite
                .and_then(|composite| composite.resource.as_ref())
                .map_or(Value::Null, remembered),
            conditions: BTreeMap::new(),
            own: BTreeSet::new(),
            withheld: false,
            refused: false,
        }
    }

    /// How long the answer is good for.
    pub fn set_ttl(&mut self, ttl: Duration) {
        if let (Some(meta), Ok(ttl)) = (&mut self.answer.meta, prost_types::Duration::try_from(ttl)) {
            meta.ttl = Some(ttl);
        }
    }

    /// Asks for an object by name; one without a namespace is cluster-scoped.
    pub fn require(&mut self, key: &str, api_version: &str, kind: &str, place: &Place) {
        let selector = ResourceSelector {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            r#match: Some(Match::MatchName(place.name.clone())),
            namespace: Some(place.namespace.clone()).filter(|namespace| !namespace.is_empty()),
        };
        let requirements = self.answer.requirements.get_or_insert_with(Requirements::default);
        requirements.resources.insert(key.to_owned(), selector);
    }

    /// Composes an object under a key.
    pub fn compose(&mut self, key: &str, object: &Value, ready: bool) {
        self.own.insert(key.to_owned());
        let resource = Resource {
            resource: Some(object::encode(object)),
            ready: if ready { Ready::True } else { Ready::False }.into(),
            ..Default::default()
        };
        self.answer.desired.get_or_insert_default().resources.insert(key.to_owned(), resource);
    }

    /// Whether an object is composed under a key by this function.
    pub fn composes(&self, key: &str) -> bool {
        self.own.contains(key)
    }

    /// Something is still to come, so the XR is not ready, whatever is composed.
    pub fn withhold(&mut self) {
        self.withheld = true;
    }

    /// Sets a condition.
    pub fn set_condition(&mut self, condition: Condition) {
        self.conditions.insert(condition.kind, condition);
    }

    /// Tells the user something once; whoever calls sees to it that it is once.
    pub fn tell(&mut self, severity: Severity, reason: Reason, message: impl Into<String>) {
        self.answer.results.push(v1::Result {
            severity: severity.into(),
            message: message.into(),
            reason: Some(reason.to_string()),
            target: Some(Target::CompositeAndClaim.into()),
        });
    }

    /// Publishes an entry of the XR's connection Secret.
    pub fn set_connection(&mut self, field: &str, value: &[u8]) {
        let composite = self.answer.desired.get_or_insert_default().composite.get_or_insert_default();
        composite.connection_details.insert(field.to_owned(), value.to_vec());
    }

    /// Sets fields of the XR's status.
    pub fn set_status(&mut self, status: Map<String, Value>) {
        let composite = self.answer.desired.get_or_insert_default().composite.get_or_insert_default();
        let mut desired =
            composite.resource.take().map_or_else(|| Value::Object(Map::new()), object::into_json);
        if !desired["status"].is_object() {
            desired["status"] = Value::Object(Map::new());
        }
        for (field, value) in status {
            desired["status"][field] = value;
        }
        composite.resource = Some(object::encode(&desired));
    }

    /// Refuses the request. Nothing will be applied, so nothing is desired or told that was decided so far, and
    /// conditions stay as they were: Crossplane sets those that are not in the answer to `Unknown`. The one
    /// that the refusal is about turns false, and the agent's health goes on being judged.
    pub fn refuse(&mut self, fatal: &Fatal) {
        self.refused = true;
        self.answer.desired = Some(std::mem::take(&mut self.given));
        self.answer.results.clear();
        self.conditions.retain(|kind, _| *kind == Kind::BackupHealthy);
        self.set_condition(Condition::no(fatal.condition(), fatal.reason(), fatal.to_string()));
        self.tell(Severity::Fatal, fatal.reason(), fatal.to_string());
    }

    /// The answer.
    pub fn finish(mut self) -> RunFunctionResponse {
        // A refusal says it all, once per cause: Crossplane makes an event of it.
        if !self.refused {
            self.tell_changes();
            self.set_readiness();
        }
        self.answer.conditions = Kind::ALL.into_iter().filter_map(|kind| self.shown(kind)).collect();
        let conditions = self.answer.conditions.iter_mut().filter_map(|condition| condition.message.as_mut());
        let results = self.answer.results.iter_mut().map(|result| &mut result.message);
        conditions.chain(results).for_each(shorten);
        self.answer
    }

    /// Events for conditions that turned, as the XR remembers them.
    fn tell_changes(&mut self) {
        let conditions: Vec<Condition> = self.conditions.values().cloned().collect();
        for Condition { kind, status, reason, message } in conditions {
            let before = object::condition(&self.before, &kind.to_string());
            let before = before.and_then(|condition| object::text(condition, &["status"]));
            let severity = match (before, status) {
                (Some("False" | "Unknown"), Status::True) => Severity::Normal,
                (Some("True"), Status::False) => Severity::Warning,
                _ => continue,
            };
            self.tell(severity, reason, format!("{kind}: {message}"));
        }
    }

    fn shown(&self, kind: Kind) -> Option<v1::Condition> {
        let (status, reason, message) = match self.conditions.get(&kind) {
            Some(Condition { status, reason, message, .. }) => (*status, reason.to_string(), message.clone()),
            None if self.refused => self.remembered(kind)?,
            None => return None,
        };
        Some(v1::Condition {
            r#type: kind.to_string(),
            status: match status {
                Status::True => v1::Status::ConditionTrue,
                Status::False => v1::Status::ConditionFalse,
                Status::Unknown => v1::Status::ConditionUnknown,
            }
            .into(),
            reason,
            message: Some(message),
            target: Some(Target::CompositeAndClaim.into()),
        })
    }

    fn remembered(&self, kind: Kind) -> Option<(Status, String, String)> {
        let condition = object::condition(&self.before, &kind.to_string())?;
        let status = match object::text(condition, &["status"])? {
            "True" => Status::True,
            "False" => Status::False,
            _ => Status::Unknown,
        };
        let message = object::text(condition, &["message"]).unwrap_or_default();
        Some((status, object::text(condition, &["reason"])?.to_owned(), message.to_owned()))
    }

    /// Ours are ready or not; with another function's resources that are not marked ready it is Crossplane
    /// that decides, over all of them.
    fn set_readiness(&mut self) {
        let own = &self.own;
        let desired = self.answer.desired.get_or_insert_default();
        let is_ready = |resource: &Resource| resource.ready == i32::from(Ready::True);
        let (ours, others): (Vec<_>, Vec<_>) =
            desired.resources.iter().partition(|(key, _)| own.contains(*key));
        let ours_ready = !self.withheld && ours.iter().all(|(_, resource)| is_ready(resource));
        let others_ready = others.iter().all(|(_, resource)| is_ready(resource));
        let composite = desired.composite.get_or_insert_default();
        if !ours_ready {
            composite.ready = Ready::False.into();
        } else if others_ready && composite.ready == i32::from(Ready::Unspecified) {
            composite.ready = Ready::True.into();
        }
    }
}

/// Leaves out the middle of a message that is too long: it begins with the field and ends with the way out.
fn shorten(message: &mut String) {
    const GAP: &str = " … ";
    if message.len() > LONGEST {
        let half = (LONGEST - GAP.len()) / 2;
        let gap = message.floor_char_boundary(half)..message.ceil_char_boundary(message.len() - half);
        message.replace_range(gap, GAP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_keep_both_ends() {
        let mut short = "spec.version: no; use another".to_owned();
        shorten(&mut short);
        assert_eq!(short, "spec.version: no; use another");
        for filler in ["x", "é", "🦀"] {
            let mut long = format!("spec.version: {} is none; use another", filler.repeat(2000));
            shorten(&mut long);
            assert!(long.len() <= LONGEST && long.len() > LONGEST - 16, "{}", long.len());
            assert!(long.starts_with("spec.version: ") && long.ends_with(" is none; use another"), "{long}");
        }
    }
}
