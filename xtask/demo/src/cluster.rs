//! The **cluster** around the function: what Crossplane and its providers would do, each in its smallest form.
//!
//! Crossplane calls the function until it asks for nothing new, and applies what it answers. provider-helm and
//! provider-minio make what was composed and set it ready; the MinIO user gets its connection Secret.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use function_vcluster_backup::object::{decode, encode};
use serde_json::{Value, json};
use tonic::transport::Channel;
use vcluster_backup_proto::v1::function_runner_service_client::FunctionRunnerServiceClient;
use vcluster_backup_proto::v1::resource_selector::Match;
use vcluster_backup_proto::v1::{
    Condition, RequestMeta, Resource, ResourceSelector, Resources, RunFunctionRequest, RunFunctionResponse,
    Severity, State, Status,
};
use vcluster_backup_tests::s3::{ACCESS_KEY, SECRET_KEY};

/// As many calls as Crossplane makes before it gives up on a function that goes on asking.
const CALLS: u32 = 6;

/// A host cluster with one XR in it.
pub struct Cluster {
    function: FunctionRunnerServiceClient<Channel>,
    xr: Value,
    input: Value,
    /// Everything composed, by its key in the pipeline.
    composed: BTreeMap<String, Value>,
    /// Everything that is there without having been composed.
    others: Vec<Value>,
    /// How often the function was called.
    pub calls: u32,
}

/// What one reconcile left behind.
pub struct Reconciled {
    /// Whether the XR is ready.
    pub ready: bool,
    /// Its conditions: type, whether true, message.
    pub conditions: Vec<(String, bool, String)>,
}

impl Cluster {
    /// A cluster in which this XR was just made.
    pub async fn new(function_port: u16, xr: Value, input: Value) -> Result<Self> {
        let function = FunctionRunnerServiceClient::connect(format!("http://127.0.0.1:{function_port}"))
            .await
            .context("cannot reach the function")?;
        Ok(Self { function, xr, input, composed: BTreeMap::new(), others: Vec::new(), calls: 0 })
    }

    /// Puts an object into the cluster that nobody composes, in place of the one of its name.
    pub fn put(&mut self, object: Value) {
        self.others
            .retain(|other| other["kind"] != object["kind"] || other["metadata"] != object["metadata"]);
        self.others.push(object);
    }

    /// What was composed under this key.
    pub fn composed(&self, key: &str) -> Result<&Value> {
        self.composed.get(key).with_context(|| format!("the function has not composed {key}"))
    }

    /// Every Secret and ConfigMap, composed or not: what a kubelet can mount.
    pub fn mountable(&self) -> impl Iterator<Item = &Value> {
        let kinds = ["Secret", "ConfigMap"];
        let all = self.composed.values().chain(&self.others);
        all.filter(move |object| object["kind"].as_str().is_some_and(|kind| kinds.contains(&kind)))
    }

    /// The kinds and names of all that is composed, for people.
    pub fn inventory(&self) -> Vec<String> {
        let line = |object: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
        };
        let mut lines: Vec<String> = self.composed.values().map(line).collect();
        lines.sort();
        lines
    }

    /// One reconcile: the calls, what is applied, and what the providers make of it.
    pub async fn reconcile(&mut self) -> Result<Reconciled> {
        let answer = self.call_until_content().await?;
        if let Some(fatal) = answer.results.iter().find(|result| result.severity() == Severity::Fatal) {
            anyhow::bail!("the function refuses: {}", fatal.message);
        }
        let desired = answer.desired.unwrap_or_default();
        if let Some(status) = desired.composite.as_ref().and_then(|xr| xr.resource.as_ref()).map(decode) {
            self.xr["status"] = status["status"].clone();
        }
        self.composed = desired
            .resources
            .iter()
            .filter_map(|(key, resource)| Some((key.clone(), decode(resource.resource.as_ref()?))))
            .collect();
        self.provide();
        let told = |condition: &Condition| {
            let message = condition.message.clone().unwrap_or_default();
            (condition.r#type.clone(), condition.status() == Status::ConditionTrue, message)
        };
        let ready = desired.composite.is_some_and(|xr| xr.ready() == vcluster_backup_proto::v1::Ready::True);
        Ok(Reconciled { ready, conditions: answer.conditions.iter().map(told).collect() })
    }

    async fn call_until_content(&mut self) -> Result<RunFunctionResponse> {
        let mut asked: BTreeMap<String, ResourceSelector> = BTreeMap::new();
        for _ in 0..CALLS {
            self.calls += 1;
            let request = self.request(&asked);
            let answer =
                self.function.run_function(request).await.context("the function failed")?.into_inner();
            let now = answer.requirements.clone().unwrap_or_default().resources;
            if now == asked {
                return Ok(answer);
            }
            asked = now;
        }
        anyhow::bail!("the function still asks for something new after {CALLS} calls")
    }

    fn request(&self, asked: &BTreeMap<String, ResourceSelector>) -> RunFunctionRequest {
        let resource = |object: &Value| Resource { resource: Some(encode(object)), ..Default::default() };
        let observed = State {
            composite: Some(resource(&self.xr)),
            resources: self.composed.iter().map(|(key, object)| (key.clone(), resource(object))).collect(),
        };
        let found = |selector: &ResourceSelector| Resources {
            items: self.find(selector).into_iter().map(resource).collect(),
        };
        RunFunctionRequest {
            meta: Some(RequestMeta { tag: format!("call-{}", self.calls), ..Default::default() }),
            observed: Some(observed),
            input: Some(encode(&self.input)),
            required_resources: asked
                .iter()
                .map(|(name, selector)| (name.clone(), found(selector)))
                .collect(),
            ..Default::default()
        }
    }

    fn find(&self, selector: &ResourceSelector) -> Option<&Value> {
        let Some(Match::MatchName(name)) = &selector.r#match else { return None };
        self.composed.values().chain(&self.others).find(|object| {
            object["kind"] == selector.kind.as_str()
                && object["metadata"]["name"] == name.as_str()
                && object["metadata"]["namespace"].as_str() == selector.namespace.as_deref()
        })
    }

    /// What the providers do with what was composed.
    fn provide(&mut self) {
        let mut connections = Vec::new();
        for object in self.composed.values_mut() {
            let kind = object["kind"].as_str().unwrap_or_default().to_owned();
            if !["Release", "Bucket", "Policy", "User"].contains(&kind.as_str()) {
                continue;
            }
            object["status"] = json!({
                "atProvider": {"state": "deployed"},
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "Synced", "status": "True"}],
            });
            if kind == "User" {
                connections.push(connection_secret(object));
            }
        }
        for secret in connections {
            self.put(secret);
        }
    }

    /// Fails unless this condition is true; its message otherwise says why.
    pub fn expect(reconciled: &Reconciled, kind: &str) -> Result<()> {
        let found = reconciled.conditions.iter().find(|(name, ..)| name == kind);
        let (_, holds, message) = found.with_context(|| format!("no condition {kind}"))?;
        ensure!(*holds, "{kind} is not true: {message}");
        Ok(())
    }
}

fn connection_secret(user: &Value) -> Value {
    let reference = &user["spec"]["writeConnectionSecretToRef"];
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": reference["name"], "namespace": reference["namespace"]},
        "data": {
            "AWS_ACCESS_KEY_ID": STANDARD.encode(ACCESS_KEY),
            "AWS_SECRET_ACCESS_KEY": STANDARD.encode(SECRET_KEY),
        },
    })
}
