//! A **tenant**: works on a virtual cluster through its API server in the background, on objects of several kinds, and
//! keeps the record of every write that was acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::record::{Attempt, Found, Record, Written};

/// Where the tenant's objects are.
pub const NAMESPACE: &str = "default";
/// With this the names of its objects begin; others may be there too.
const NAME: &str = "tenant-";
/// Between two writes.
const PAUSE: Duration = Duration::from_millis(25);

/// What is written: two of Kubernetes' own, which it stores as protobuf, and one of [`definition`], stored as JSON.
fn kinds() -> [ApiResource; 3] {
    [("", "ConfigMap"), ("", "Secret"), ("example.com", "Widget")]
        .map(|(group, kind)| ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind)))
}

/// The definition of the tenant's own kind.
pub fn definition() -> Value {
    let spec = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"kind": "Widget", "plural": "widgets", "singular": "widget"},
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
            }],
        },
    })
}

/// A tenant at work. Dropped, it stops without a word.
pub struct Tenant {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    task: JoinHandle<Result<Record>>,
}

impl Tenant {
    /// Begins, once its own kind is served.
    pub async fn start(client: kube::Client) -> Result<Self> {
        found(&client).await?;
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn(work(client, Arc::clone(&stop), Arc::clone(&written)));
        Ok(Self { stop, written, task })
    }

    /// How many writes were acknowledged so far.
    pub fn written(&self) -> usize {
        self.written.load(Ordering::SeqCst)
    }

    /// Stops after the write that is under way, and tells all that was written.
    pub async fn stop(mut self) -> Result<Record> {
        self.stop.store(true, Ordering::SeqCst);
        (&mut self.task).await.context("the tenant panicked")?
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All of the tenant's objects that are there. An API server that has just started serves defined kinds a little later.
pub async fn found(client: &kube::Client) -> Result<BTreeMap<String, Found>> {
    let mut found = BTreeMap::new();
    for kind in kinds() {
        let api = api(client, &kind);
        let begin = Instant::now();
        let listed = loop {
            match api.list(&ListParams::default()).await {
                Ok(listed) => break listed,
                Err(_) if begin.elapsed() < Duration::from_secs(30) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(error).with_context(|| format!("cannot list {}", kind.plural)),
            }
        };
        for object in listed {
            let name = object.metadata.name.clone().context("an object without a name")?;
            if name.starts_with(NAME) {
                let there = Found { revision: revision(&object)?, content: object.data };
                found.insert(format!("{}/{name}", kind.kind), there);
            }
        }
    }
    Ok(found)
}

/// The revision of an object.
pub fn revision(object: &DynamicObject) -> Result<u64> {
    let version = object.metadata.resource_version.as_deref().context("an object without resourceVersion")?;
    version.parse().with_context(|| format!("resourceVersion {version:?} is no number"))
}

/// The tenant's ConfigMaps, with which other clients can go on.
pub fn config_maps(client: &kube::Client) -> Api<DynamicObject> {
    api(client, &kinds()[0])
}

/// A ConfigMap, for [`config_maps`].
pub fn config_map(name: &str) -> DynamicObject {
    DynamicObject::new(name, &kinds()[0]).data(json!({"data": {"written": "by hand"}}))
}

fn api(client: &kube::Client, kind: &ApiResource) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), NAMESPACE, kind)
}

async fn work(client: kube::Client, stop: Arc<AtomicBool>, written: Arc<AtomicUsize>) -> Result<Record> {
    let kinds = kinds();
    let mut record = Record::default();
    // What is alive: kind and name, and the newest revision.
    let mut alive: Vec<(usize, String, u64)> = Vec::new();
    let mut tick = tokio::time::interval(PAUSE);
    let mut number = 0_usize;
    while !stop.load(Ordering::SeqCst) {
        tick.tick().await;
        number += 1;
        // Of twelve writes six change something, the oldest first, and one deletes.
        let turn = if alive.len() < 12 { 0 } else { number % 12 };
        let (kind, name, before) = if turn < 5 {
            (number % kinds.len(), format!("{NAME}{number:05}"), None)
        } else {
            let (kind, name, revision) = alive.remove(0);
            (kind, name, Some(revision))
        };
        let (api, object) = (api(&client, &kinds[kind]), format!("{}/{name}", kinds[kind].kind));
        let deletes = before.is_some() && turn == 11;
        let mut wanted = DynamicObject::new(&name, &kinds[kind]).data(content(kind, number));
        wanted.metadata.resource_version = before.map(|revision| revision.to_string());
        let answer = match before {
            None => api.create(&PostParams::default(), &wanted).await.map(Some),
            Some(_) if deletes => api.delete(&name, &DeleteParams::default()).await.map(|_| None),
            Some(_) => api.replace(&name, &PostParams::default(), &wanted).await.map(Some),
        };
        let at = Instant::now();
        match answer {
            // A server without its store answers too, with 500 and more: it does not know either.
            Err(kube::Error::Api(refused)) if refused.code < 500 => {
                return Err(kube::Error::Api(refused)).with_context(|| format!("{object} was refused"));
            }
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                record.unanswered = Some(Attempt { object, deletes, error });
                break;
            }
            Ok(None) => {
                record.acknowledged.push(Written { object, revision: 0, content: None, at });
            }
            Ok(Some(answer)) => {
                let revision = revision(&answer)?;
                record.acknowledged.push(Written { object, revision, content: Some(answer.data), at });
                alive.push((kind, name, revision));
            }
        }
        written.store(record.acknowledged.len(), Ordering::SeqCst);
    }
    Ok(record)
}

/// What is in an object after its write of this number.
fn content(kind: usize, number: usize) -> Value {
    let fields =
        json!({"number": number.to_string(), "text": "naïve \u{1f40c} text ".repeat(1 + number % 60)});
    match kind {
        0 => json!({"data": fields}),
        1 => json!({"stringData": fields}),
        _ => json!({"spec": fields}),
    }
}
