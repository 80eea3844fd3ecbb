//! **Structural** schemas: what Kubernetes takes of JSON Schema. Every field has one type, nothing is referred to or
//! composed, and a field is left out rather than null.

use anyhow::{Result, bail};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

type Schema = Map<String, Value>;

/// What cannot be said in a structural schema.
const COMPOSED: [&str; 10] =
    ["$ref", "$defs", "definitions", "allOf", "anyOf", "oneOf", "not", "const", "patternProperties", "title"];

/// The schema of a type.
pub fn of<T: JsonSchema>() -> Result<Value> {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    rewrite(&mut schema, "")?;
    Ok(schema)
}

fn rewrite(value: &mut Value, path: &str) -> Result<()> {
    let Value::Object(schema) = value else { bail!("{path}: a schema that is {value} says nothing") };
    schema.remove("title");
    take_null_out(schema);
    name_choices(schema);
    if schema.get("additionalProperties") == Some(&json!(false)) {
        // Kubernetes drops what it does not know, and says so to whoever asks.
        schema.remove("additionalProperties");
    }
    if schema.get("additionalProperties") == Some(&json!(true)) {
        schema.remove("additionalProperties");
        schema.insert("x-kubernetes-preserve-unknown-fields".into(), json!(true));
    }
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    match schema.get("format").and_then(Value::as_str) {
        Some("uint32" | "int32") => drop(schema.remove("format")),
        Some("uint64") => drop(schema.insert("format".into(), json!("int64"))),
        _ => {}
    }
    if let Some(composed) = COMPOSED.into_iter().find(|field| schema.contains_key(*field)) {
        bail!("{path}: {composed} is not for a structural schema: {}", schema[composed]);
    }
    if !schema.contains_key("type") {
        bail!("{path}: it has no type");
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for (name, property) in properties {
            rewrite(property, &format!("{path}.{name}"))?;
        }
    }
    for (field, suffix) in [("items", "[]"), ("additionalProperties", ".*")] {
        if let Some(below) = schema.get_mut(field) {
            rewrite(below, &format!("{path}{suffix}"))?;
        }
    }
    shorten_default(schema);
    Ok(())
}

/// An `Option` is a field that may be left out.
fn take_null_out(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type") != Some(&json!("null")));
        if let [Value::Object(only)] = choices.as_slice() {
            // What is said of the field goes before what is said of its type.
            let only = only.clone();
            schema.remove("anyOf");
            for (field, value) in only {
                schema.entry(field).or_insert(value);
            }
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("enum") {
        choices.retain(|choice| !choice.is_null());
    }
}

/// Choices that explain themselves become plain ones, and what they mean goes into the description.
fn name_choices(schema: &mut Schema) {
    let Some(Value::Array(choices)) = schema.get("oneOf") else { return };
    let mut names = Vec::new();
    let mut meanings = Vec::new();
    for choice in choices {
        // Those without a word of their own are together in one `enum`.
        if let Some(Value::Array(plain)) = choice.get("enum") {
            names.extend(plain.iter().filter(|name| !name.is_null()).cloned());
        } else if let Some(name) = choice.get("const") {
            if let (Some(name), Some(meaning)) = (name.as_str(), choice["description"].as_str()) {
                meanings.push(format!(" {name}: {}", first_lowered(meaning)));
            }
            names.push(name.clone());
        } else {
            return;
        }
    }
    schema.remove("oneOf");
    schema.insert("type".into(), json!("string"));
    schema.insert("enum".into(), Value::Array(names));
    if let Some(Value::String(text)) = schema.get_mut("description") {
        text.push_str(&meanings.concat());
    }
}

fn first_lowered(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_lowercase().chain(letters).collect())
}

/// Of an object's default `{}` is enough, for its fields have theirs, and too little where one must be said; nothing
/// and empty ones are none.
fn shorten_default(schema: &mut Schema) {
    let is_whole = !schema.contains_key("required");
    let has_defaults = schema
        .get("properties")
        .and_then(Value::as_object)
        .is_some_and(|properties| properties.values().any(|property| property.get("default").is_some()));
    match schema.get_mut("default") {
        Some(Value::Object(default)) if has_defaults && is_whole => default.clear(),
        Some(Value::Null | Value::Object(_)) => drop(schema.remove("default")),
        Some(Value::Array(items)) if items.is_empty() => drop(schema.remove("default")),
        Some(Value::String(text)) if text.is_empty() => drop(schema.remove("default")),
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde::Serialize;

    use super::*;

    /// A word.
    #[derive(JsonSchema, Serialize, Default)]
    #[allow(dead_code)]
    enum Word {
        /// The first.
        #[default]
        One,
        /// The second.
        Two,
    }

    #[derive(JsonSchema, Serialize)]
    #[serde(default)]
    struct Inner {
        count: u32,
        name: Option<String>,
    }

    impl Default for Inner {
        fn default() -> Self {
            Self { count: 3, name: None }
        }
    }

    #[derive(JsonSchema, Serialize, Default)]
    #[serde(default)]
    #[schemars(extend("required" = ["name"]))]
    struct Needy {
        name: String,
        on: bool,
    }

    #[derive(JsonSchema, Serialize, Default)]
    #[serde(deny_unknown_fields, default)]
    #[allow(dead_code)]
    struct Outer {
        /// Which.
        word: Word,
        maybe: Option<Word>,
        inner: Inner,
        free: Map<String, Value>,
        list: Vec<Inner>,
        needy: Needy,
    }

    #[test]
    fn what_schemars_says_becomes_structural() {
        let inner = json!({"type": "object", "properties": {
            "count": {"type": "integer", "minimum": 0, "default": 3},
            "name": {"type": "string"},
        }});
        let mut with_default = inner.clone();
        with_default["default"] = json!({});
        assert_eq!(
            of::<Outer>().unwrap(),
            json!({"type": "object", "properties": {
                "word": {
                    "type": "string", "enum": ["One", "Two"], "default": "One",
                    "description": "Which. One: the first. Two: the second.",
                },
                "maybe": {
                    "type": "string", "enum": ["One", "Two"],
                    "description": "A word. One: the first. Two: the second.",
                },
                "inner": with_default,
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "list": {"type": "array", "items": inner},
                "needy": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"},
                    "on": {"type": "boolean", "default": false},
                }},
            }})
        );
    }

    #[derive(JsonSchema)]
    #[allow(dead_code)]
    struct Either {
        either: Choice,
    }

    #[derive(JsonSchema)]
    #[serde(untagged)]
    #[allow(dead_code)]
    enum Choice {
        Number(u32),
        Text(String),
    }

    #[test]
    fn what_cannot_be_structural_is_refused_with_its_path() {
        let error = of::<Either>().unwrap_err().to_string();
        assert!(error.starts_with(".either: anyOf is not for a structural schema"), "{error}");
    }
}
