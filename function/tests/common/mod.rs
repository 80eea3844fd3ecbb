//! What the tests of the function share: cases, and a model of what goes on around it.

#![allow(dead_code, unused_imports)] // every test binary takes what it needs of it

mod case;
pub mod cluster;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

pub use case::{Case, IDENTITY, observed, required, show};

/// Whether somewhere in an object there is an identity, or a master key of the cases: in clear, or encoded as
/// Secrets are.
pub fn reveals_identity(object: &Value) -> bool {
    let is_secret =
        |text: &str| text.contains("AGE-SECRET-KEY") || text.contains("0123456789abcdef0123456789abcdef");
    match object {
        Value::String(text) => {
            let decoded = STANDARD.decode(text).unwrap_or_default();
            is_secret(text) || is_secret(&String::from_utf8_lossy(&decoded))
        }
        Value::Array(items) => items.iter().any(reveals_identity),
        Value::Object(fields) => fields.values().any(reveals_identity),
        _ => false,
    }
}
