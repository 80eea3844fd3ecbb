//! **YAML** for people: what a thing is comes first, then what is in it; all else by the alphabet.

use anyhow::{Context as _, Result};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;
use serde_saphyr::{ser_options, to_string_with_options};

/// Fields that come first, in this order.
const FIRST: [&str; 12] = [
    "apiVersion",
    "kind",
    "metadata",
    "name",
    "type",
    "description",
    "default",
    "enum",
    "format",
    "pattern",
    "required",
    "rule",
];
/// Fields that come last, in this order.
const LAST: [&str; 5] =
    ["x-kubernetes-validations", "additionalProperties", "items", "properties", "versions"];

/// One document, block by block, the same for the same value.
pub fn document(value: &Value) -> Result<String> {
    let options = ser_options! { compact_list_indent: true, folded_wrap_chars: 100 };
    to_string_with_options(&Node { value, named: false }, options).context("this cannot be written as YAML")
}

/// A value; `named` if its fields are names that somebody chose, which stand in the alphabet's order alone.
struct Node<'a> {
    value: &'a Value,
    named: bool,
}

impl Serialize for Node<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::Object(fields) => {
                let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
                if !self.named {
                    fields.sort_by_key(|(name, _)| (rank(name), *name));
                }
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    let named = !self.named && name == "properties";
                    map.serialize_entry(name, &Node { value, named })?;
                }
                map.end()
            }
            Value::Array(items) => {
                serializer.collect_seq(items.iter().map(|value| Node { value, named: false }))
            }
            scalar => scalar.serialize(serializer),
        }
    }
}

fn rank(name: &str) -> usize {
    let first = FIRST.iter().position(|first| *first == name);
    let last = LAST.iter().position(|last| *last == name);
    first.or(last.map(|last| FIRST.len() + 1 + last)).unwrap_or(FIRST.len())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_it_is_comes_before_what_is_in_it() {
        let value = json!({"properties": {"type": {"maxLength": 3, "type": "string"}, "default": {}}, "type": "object"});
        let text = "type: object\nproperties:\n  default: {}\n  type:\n    type: string\n    maxLength: 3\n";
        assert_eq!(document(&value).unwrap(), text);
    }
}
