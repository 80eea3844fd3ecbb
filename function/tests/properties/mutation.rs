//! **Mutations** of a request: any part of it in any place, by something that nobody would write there.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::common::Case;
use crate::secrecy::MARKER;

/// What of a request is changed.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    Xr,
    Input,
    Observed,
    Required,
    Desired,
    Context,
    Credentials,
}

pub fn part() -> impl Strategy<Value = Part> {
    use Part::{Context, Credentials, Desired, Input, Observed, Required, Xr};
    prop::sample::select(vec![
        Xr,
        Xr,
        Xr,
        Input,
        Input,
        Observed,
        Observed,
        Required,
        Required,
        Desired,
        Context,
        Credentials,
    ])
}

pub fn change(case: &mut Case, part: Part, pick: usize, hostile: Option<&Value>) {
    match part {
        Part::Xr => mutate(&mut case.xr, pick, hostile),
        Part::Input => mutate(&mut case.input, pick, hostile),
        Part::Observed => change_one(&mut case.observed, pick, hostile),
        Part::Required => change_one(&mut case.required, pick, hostile),
        Part::Desired => {
            case.desired.entry("vcluster".into()).or_insert_with(|| json!({"kind": "Release"}));
            change_one(&mut case.desired, pick, hostile);
        }
        Part::Context => mutate(case.context.get_or_insert_with(|| json!({"a": {"b": 1}})), pick, hostile),
        Part::Credentials => {
            // Another length, name or key; a credential's data is bytes whatever it was written as.
            let text =
                hostile.map_or_else(String::new, |hostile| format!("{MARKER}{}", hostile.to_string().len()));
            let name = ["master-key", "other", ""][pick % 3];
            case.credentials
                .entry(name.into())
                .or_default()
                .insert(["master-key", "x"][pick / 3 % 2].into(), text);
        }
    }
}

/// Changes one of them, or takes it away. The shorthands are written out before.
fn change_one(objects: &mut BTreeMap<String, Value>, pick: usize, hostile: Option<&Value>) {
    let Some(key) = objects.keys().nth(pick % objects.len().max(1)).cloned() else { return };
    if hostile.is_none() && pick.is_multiple_of(5) {
        objects.remove(&key);
    } else if let Some(object) = objects.get_mut(&key).filter(|object| !object.is_string()) {
        mutate(object, pick, hostile);
        // Text is a shorthand, which a whole object cannot become.
        if object.is_string() {
            *object = json!({});
        }
    }
}

/// What stands in the place of something else; none takes it away.
pub fn hostile() -> impl Strategy<Value = Option<Value>> {
    let odd = [
        "a/../b",
        "{{ .Values }}",
        "\u{0}",
        "-",
        ".",
        "",
        " ",
        "0",
        "-1",
        "1e400",
        "2h 3x",
        "null",
        "true",
        "\n---\n",
        "a: b",
        "${HOME}",
        "$(id)",
        "--flag=1",
        "\u{202e}txet",
        "🦀",
        "é".repeat(70).leak(),
        "9".repeat(400).leak(),
    ];
    prop_oneof![
        Just(None),
        Just(Some(Value::Null)),
        any::<f64>().prop_map(|number| Some(json!(number))),
        prop::sample::select(vec![0_i64, -1, 1 << 53, i64::MIN, i64::MAX])
            .prop_map(|number| Some(json!(number))),
        any::<bool>().prop_map(|flag| Some(json!(flag))),
        "\\PC{0,80}".prop_map(|text| Some(json!(text))),
        prop::sample::select(odd.to_vec()).prop_map(|text| Some(json!(text))),
        Just(Some(json!([{"name": [[]]}, null, 7]))),
        Just(Some(json!({"": {"enabled": true}, "metadata": {"name": 7}}))),
        (0..3000_usize).prop_map(|length| Some(json!("x".repeat(length)))),
        (100_000..300_000_usize).prop_map(|length| Some(json!("y".repeat(length)))),
        (0..3000_usize).prop_map(|length| Some(json!(vec![json!({"name": "z"}); length]))),
        (0..20_usize)
            .prop_map(|depth| Some((0..depth).fold(json!("deep"), |inner, _| json!({"a": [inner]})))),
    ]
}

/// Every path of a value.
fn paths(value: &Value, path: &mut Vec<String>, all: &mut Vec<Vec<String>>) {
    all.push(path.clone());
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect()
        }
        _ => Vec::new(),
    };
    for (name, child) in children {
        path.push(name);
        paths(child, path, all);
        path.pop();
    }
}

/// Puts `hostile` in the place of what stands at one of the value's paths, or takes that away.
fn mutate(value: &mut Value, pick: usize, hostile: Option<&Value>) {
    let mut all = Vec::new();
    paths(value, &mut Vec::new(), &mut all);
    let path = &all[pick % all.len()];
    let Some((last, parents)) = path.split_last() else {
        *value = hostile.cloned().unwrap_or(Value::Null);
        return;
    };
    let parent = parents.iter().fold(value, |value, name| match value {
        Value::Array(items) => &mut items[name.parse::<usize>().unwrap()],
        other => &mut other[name.as_str()],
    });
    match (parent, hostile) {
        (Value::Array(items), Some(hostile)) => items[last.parse::<usize>().unwrap()] = hostile.clone(),
        (Value::Array(items), None) => drop(items.remove(last.parse::<usize>().unwrap())),
        (Value::Object(fields), Some(hostile)) => drop(fields.insert(last.clone(), hostile.clone())),
        (Value::Object(fields), None) => drop(fields.remove(last)),
        _ => unreachable!("a path's parents have children"),
    }
}
