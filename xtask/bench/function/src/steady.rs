//! The request of a **steady state**: all is composed, observed as it was composed, and ready. Nine of ten calls are so.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use function_vcluster_backup::{function, object};
use ring::rand::SystemRandom;
use serde_json::Value;
use vcluster_backup_proto::v1::{Resource, RunFunctionRequest};

use crate::case::Case;

/// The golden case `healthy` of a claim, with the observed objects in full.
pub fn request() -> Result<RunFunctionRequest> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../function/tests/golden/claim/healthy");
    let mut case = Case::read(&folder);
    let report = case.required.get_mut("backup-status").context("the agent reports nothing")?;
    report["data"]["lastSuccess"] = jiff::Timestamp::now().to_string().into();
    let mut request = case.request();
    let answer = function::run(request.clone(), SystemTime::now(), &SystemRandom::new());
    let composed = answer.desired.context("nothing was composed")?;
    let observed = request.observed.as_mut().context("nothing is observed")?;
    for (key, resource) in composed.resources {
        lay_under(observed.resources.entry(key).or_default(), &resource);
    }
    let xr = observed.composite.as_mut().context("no XR is observed")?;
    lay_under(xr, &composed.composite.unwrap_or_default());
    Ok(request)
}

/// What was composed, with what is observed over it.
fn lay_under(observed: &mut Resource, composed: &Resource) {
    let value = |resource: &Resource| resource.resource.as_ref().map_or(Value::Null, object::decode);
    let mut whole = value(composed);
    lay_over(&mut whole, value(observed));
    observed.resource = Some(object::encode(&whole));
}

fn lay_over(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (field, value) in over {
                lay_over(base.entry(field).or_insert(Value::Null), value);
            }
        }
        // The shorthand of a case leaves these out; the composed ones stand.
        (Value::Array(_), Value::Array(_)) => {}
        (base, over) => *base = over,
    }
}
