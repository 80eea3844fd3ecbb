//! **Objects**: Kubernetes objects between protobuf's `Struct`, which knows no integers, and JSON, which the
//! rest of the crate speaks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as Proto};
use serde_json::{Map, Number, Value, json};
use zeroize::Zeroizing;

/// Above this an `f64` no longer holds every integer (2^53).
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Reads a `Struct`; whole numbers become integers again.
pub fn decode(object: &Struct) -> Value {
    into_json(object.clone())
}

/// The same of one that is not needed any more: its texts are moved, which is most of the work.
pub fn into_json(object: Struct) -> Value {
    Value::Object(object.fields.into_iter().map(|(key, value)| (key, decode_value(value))).collect())
}

/// Reads a part of a `Struct`; null where there is none.
pub fn decode_at(object: &Struct, path: &[&str]) -> Value {
    let Some((name, rest)) = path.split_first() else { return decode(object) };
    match object.fields.get(*name) {
        Some(value) if rest.is_empty() => decode_value(value.clone()),
        Some(Proto { kind: Some(Kind::StructValue(object)) }) => decode_at(object, rest),
        _ => Value::Null,
    }
}

fn decode_value(value: Proto) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(flag)) => Value::Bool(flag),
        Some(Kind::NumberValue(number)) => decode_number(number),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::StructValue(object)) => into_json(object),
        Some(Kind::ListValue(list)) => Value::Array(list.values.into_iter().map(decode_value).collect()),
    }
}

#[allow(clippy::cast_possible_truncation)] // guarded: whole and within 2^53
fn decode_number(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() <= EXACT {
        Value::Number(Number::from(number as i64))
    } else {
        // Not-a-number and the infinities have no JSON.
        Number::from_f64(number).map_or(Value::Null, Value::Number)
    }
}

/// Writes a JSON object as a `Struct`; anything else is an empty one.
pub fn encode(value: &Value) -> Struct {
    match value {
        Value::Object(fields) => encode_fields(fields),
        _ => Struct::default(),
    }
}

fn encode_fields(fields: &Map<String, Value>) -> Struct {
    Struct { fields: fields.iter().map(|(key, value)| (key.clone(), encode_value(value))).collect() }
}

fn encode_value(value: &Value) -> Proto {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(*flag),
        // Every number that JSON can hold has an f64, if not always the same one.
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => {
            Kind::ListValue(ListValue { values: items.iter().map(encode_value).collect() })
        }
        Value::Object(fields) => Kind::StructValue(encode_fields(fields)),
    };
    Proto { kind: Some(kind) }
}

/// The value at a path of field names.
pub fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| value.get(name))
}

/// The text at a path, if it is text and not empty.
pub fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    at(value, path)?.as_str().filter(|text| !text.is_empty())
}

/// Whether condition `Ready` of an observed object is true.
pub fn is_ready(object: &Value) -> bool {
    condition(object, "Ready").is_some_and(|condition| text(condition, &["status"]) == Some("True"))
}

/// Whether an object is nobody's that counts on it: not being deleted, and controlled by none but `uid`.
pub fn is_free_for(object: &Value, uid: Option<&str>) -> bool {
    let owners = at(object, &["metadata", "ownerReferences"]).and_then(Value::as_array);
    let is_anothers =
        |owner: &Value| owner.get("controller") == Some(&json!(true)) && text(owner, &["uid"]) != uid;
    text(object, &["metadata", "deletionTimestamp"]).is_none()
        && !owners.is_some_and(|owners| owners.iter().any(is_anothers))
}

/// A condition in an object's status.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    at(object, &["status", "conditions"])?.as_array()?.iter().find(|c| text(c, &["type"]) == Some(kind))
}

/// A Secret or ConfigMap with the content of one that is there: what is no longer composed is deleted, and what
/// the server added must not be sent back.
pub fn kept(kind: &str, name: &str, namespace: &str, there: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
    });
    for field in ["type", "immutable", "data"] {
        if let Some(value) = there.get(field).filter(|value| !value.is_null()) {
            object[field] = value.clone();
        }
    }
    object
}

/// A Secret of entries that are not encoded yet.
pub fn secret<'a>(
    name: &str,
    namespace: &str,
    entries: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Value {
    let data: Map<String, Value> =
        entries.into_iter().map(|(key, bytes)| (key.to_owned(), json!(STANDARD.encode(bytes)))).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": "Opaque",
        "data": data,
    })
}

/// The bytes of a Secret's entry.
pub fn entry(secret: &Value, key: &str) -> Option<Zeroizing<Vec<u8>>> {
    STANDARD.decode(text(secret, &["data", key])?).ok().map(Zeroizing::new)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn integers_come_back_as_integers() {
        let object = json!({"replicas": 3, "ratio": 0.5, "big": 9_007_199_254_740_991_i64, "list": [1, "a", null, true]});
        assert_eq!(decode(&encode(&object)), object);
        assert_eq!(decode(&encode(&object))["replicas"].as_i64(), Some(3));
    }

    #[test]
    fn a_part_is_read_as_the_whole_has_it() {
        let object = encode(&json!({"status": {"conditions": [{"type": "Ready"}], "count": 3}}));
        for path in [&["status", "conditions"][..], &["status", "count"], &["status"], &[]] {
            assert_eq!(Some(&decode_at(&object, path)), at(&decode(&object), path), "{path:?}");
        }
        for path in [&["status", "count", "deeper"][..], &["spec"]] {
            assert_eq!(decode_at(&object, path), Value::Null, "{path:?}");
        }
    }

    #[test]
    fn what_json_cannot_say_is_null() {
        for number in [f64::NAN, f64::INFINITY] {
            assert_eq!(decode_number(number), Value::Null);
        }
        assert_eq!(decode_number(1e300).as_f64(), Some(1e300));
    }

    #[test]
    fn readiness_is_the_condition_of_that_name() {
        let object = json!({"status": {"conditions": [{"type": "Synced", "status": "True"}, {"type": "Ready", "status": "False"}]}});
        assert!(!is_ready(&object));
        assert!(is_ready(&json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})));
        assert!(!is_ready(&json!({})));
    }
}
