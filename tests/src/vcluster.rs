//! A **Vcluster** as Crossplane hands it to the function: the shipped examples, with what Crossplane adds.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::crossplane::{compositions, read};

/// An identity of these tests; it opens nothing else.
pub const IDENTITY: &str = "AGE-SECRET-KEY-1HJHSYW0YE7RVEUNS8QXENFTVU5DC3R7809AK7RL5498HPMYNW5DQL2TFHJ";
/// Its recipient.
pub const RECIPIENT: &str = "age120z6pyucf3syr7w4u6ldavrtxvlemvfgyr5fk8emdn45x28pdclqqrq0p3";
/// The XR's uid, which an API server would have drawn.
pub const UID: &str = "0b5e7d0e-5a3f-4c1e-9a53-5b1f6c0d2e71";

/// Both flavours of the definition, as their folders are called.
pub const FLAVOURS: [&str; 2] = ["claim", "namespaced"];

/// Shipped examples of each flavour: those that are composed whole at once.
pub const EXAMPLES: [&str; 5] = ["minimal", "full", "restore", "without-backup", "rancher"];

/// The XR of one of the flavour's examples.
pub fn example(flavour: &str, name: &str) -> Result<Value> {
    let written = read(&compositions().join(flavour).join("examples").join(format!("{name}.yaml")))?;
    if flavour == "claim" { of_claim(&written) } else { with_uid(written) }
}

/// The XR that Crossplane makes of a claim: its spec, a reference back, and a name of its own.
fn of_claim(claim: &Value) -> Result<Value> {
    let text = |pointer: &str| {
        claim.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no {pointer}"))
    };
    let (kind, name, namespace) = (text("/kind")?, text("/metadata/name")?, text("/metadata/namespace")?);
    let mut xr = json!({
        "apiVersion": text("/apiVersion")?,
        "kind": format!("X{kind}"),
        "metadata": {
            "name": format!("{name}-x7k2p"),
            "labels": {"crossplane.io/claim-name": name, "crossplane.io/claim-namespace": namespace},
        },
        "spec": claim["spec"],
    });
    xr["spec"]["claimRef"] =
        json!({"apiVersion": text("/apiVersion")?, "kind": kind, "name": name, "namespace": namespace});
    with_uid(xr)
}

fn with_uid(mut xr: Value) -> Result<Value> {
    let metadata = xr["metadata"].as_object_mut().context("an XR without metadata")?;
    metadata.insert("uid".into(), json!(UID));
    Ok(xr)
}

/// The Secret with the identity of these tests, in the place of one that the function composed.
pub fn identity_secret(composed: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": composed["metadata"]["name"],
            "namespace": composed["metadata"]["namespace"],
        },
        "type": "Opaque",
        "immutable": true,
        "data": {"age-identity": base64(IDENTITY), "age-recipient": base64(RECIPIENT)},
    })
}

/// As the data of a Secret has it.
pub fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

/// A key of a Secret's data, decoded.
pub fn secret_text(secret: &Value, key: &str) -> Result<String> {
    let encoded = secret["data"][key].as_str().with_context(|| format!("the Secret has no key {key}"))?;
    Ok(String::from_utf8(STANDARD.decode(encoded)?)?)
}
