//! **Chart values** in three layers: the platform's, the user's over them, the function's own over both.

use serde_json::{Map, Value};

use crate::object::at;

/// The layers, and what they come to.
#[derive(Debug, Clone)]
pub struct Values {
    user: Value,
    merged: Value,
    overridden: Vec<String>,
}

impl Values {
    /// Lays the user's values over the platform's: objects are merged, all else is replaced.
    pub fn layered(platform: &Map<String, Value>, user: &Map<String, Value>) -> Self {
        let user = Value::Object(user.clone());
        let mut merged = Value::Object(platform.clone());
        merge(&mut merged, &user);
        Self { user, merged, overridden: Vec::new() }
    }

    /// The values of an observed release.
    pub fn observed(release: &Value) -> Self {
        let values = at(release, &["spec", "forProvider", "values"]).and_then(Value::as_object);
        values.map_or_else(
            || Self::layered(&Map::new(), &Map::new()),
            |values| Self::layered(values, &Map::new()),
        )
    }

    /// The value at a path, before the function's own.
    pub fn at(&self, path: &[&str]) -> Option<&Value> {
        at(&self.merged, path)
    }

    /// Whether there is a `true` at a path.
    pub fn is_on(&self, path: &[&str]) -> bool {
        self.at(path) == Some(&Value::Bool(true))
    }

    /// What whoever set a path calls it.
    pub fn field(&self, path: &[&str]) -> String {
        let root = if at(&self.user, path).is_some() { "spec.values" } else { "input.chart.values" };
        format!("{root}.{}", path.join("."))
    }

    /// Appends an item to the list at a path. One that is there under the same name gives way; so does
    /// anything that is in the way of the list.
    pub fn append(&mut self, path: &[&str], item: Value) {
        for upto in 1..=path.len() {
            let fits = |value: &Value| if upto == path.len() { value.is_array() } else { value.is_object() };
            if self.at(&path[..upto]).is_some_and(|value| !value.is_null() && !fits(value)) {
                self.overridden.push(self.field(&path[..upto]));
            }
        }
        let list = self.at(path).and_then(Value::as_array);
        if list.is_some_and(|list| list.iter().any(|other| other.get("name") == item.get("name"))) {
            let name = item.get("name").and_then(Value::as_str).unwrap_or_default();
            self.overridden.push(format!("{}[{name}]", self.field(path)));
        }
        self.merged = with_item(self.merged.take(), path, item);
    }

    /// Sets a field. What is there gives way, and so does anything that is in the way.
    pub fn set(&mut self, path: &[&str], value: Value) {
        for upto in 1..=path.len() {
            let gives_way =
                |there: &Value| if upto == path.len() { *there != value } else { !there.is_object() };
            if self.at(&path[..upto]).is_some_and(|there| !there.is_null() && gives_way(there)) {
                self.overridden.push(self.field(&path[..upto]));
            }
        }
        self.merged = with_field(self.merged.take(), path, value);
    }

    /// The fields that gave way to the function's own.
    pub fn overridden(&self) -> &[String] {
        &self.overridden
    }

    /// All layers together.
    pub fn into_json(self) -> Value {
        self.merged
    }
}

/// `value` with another one at a path.
fn with_field(value: Value, path: &[&str], field: Value) -> Value {
    let Some((name, rest)) = path.split_first() else { return field };
    let mut fields = if let Value::Object(fields) = value { fields } else { Map::new() };
    let below = fields.remove(*name).unwrap_or_default();
    fields.insert((*name).to_owned(), with_field(below, rest, field));
    Value::Object(fields)
}

/// `value` with an item at the end of the list at a path, in the place of one of the same name.
fn with_item(value: Value, path: &[&str], item: Value) -> Value {
    let Some((name, rest)) = path.split_first() else {
        let mut list = if let Value::Array(list) = value { list } else { Vec::new() };
        list.retain(|other| other.get("name") != item.get("name"));
        list.push(item);
        return Value::Array(list);
    };
    let mut fields = if let Value::Object(fields) = value { fields } else { Map::new() };
    let below = fields.remove(*name).unwrap_or_default();
    fields.insert((*name).to_owned(), with_item(below, rest, item));
    Value::Object(fields)
}

fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (name, value) in over {
                match base.get_mut(name) {
                    Some(below) => merge(below, value),
                    None => {
                        base.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (base, over) => *base = over.clone(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    #[test]
    fn the_user_wins_over_the_platform_and_is_named() {
        let values = Values::layered(
            &map(json!({"a": {"b": 1, "c": [1]}, "d": true})),
            &map(json!({"a": {"b": 2, "c": [2]}})),
        );
        assert_eq!(values.at(&["a", "b"]), Some(&json!(2)));
        assert_eq!(values.at(&["a", "c"]), Some(&json!([2])));
        assert!(values.is_on(&["d"]));
        assert_eq!(values.field(&["a", "b"]), "spec.values.a.b");
        assert_eq!(values.field(&["d"]), "input.chart.values.d");
    }

    #[test]
    fn the_functions_own_are_added_and_a_clash_is_told() {
        let mut values = Values::layered(
            &map(json!({"s": {"list": [{"name": "logs"}, {"name": "own", "image": "other"}]}})),
            &map(json!({"t": "text"})),
        );
        values.append(&["s", "list"], json!({"name": "own"}));
        values.append(&["t", "list"], json!({"name": "own"}));
        values.append(&["u", "list"], json!({"name": "own"}));
        assert_eq!(values.overridden(), ["input.chart.values.s.list[own]", "spec.values.t"]);
        assert_eq!(
            values.into_json(),
            json!({
                "s": {"list": [{"name": "logs"}, {"name": "own"}]},
                "t": {"list": [{"name": "own"}]},
                "u": {"list": [{"name": "own"}]},
            })
        );
    }

    #[test]
    fn a_field_that_is_set_takes_its_place() {
        let mut values = Values::layered(
            &map(json!({"plugin": {"own": {"image": "other"}, "more": {}}, "text": "x"})),
            &map(json!({"same": {"a": 1}})),
        );
        values.set(&["plugin", "own"], json!({"image": "own"}));
        values.set(&["text", "below"], json!(1));
        values.set(&["same", "a"], json!(1));
        values.set(&["new", "a"], json!(1));
        assert_eq!(values.overridden(), ["input.chart.values.plugin.own", "input.chart.values.text"]);
        assert_eq!(
            values.into_json(),
            json!({
                "plugin": {"own": {"image": "own"}, "more": {}},
                "text": {"below": 1},
                "same": {"a": 1},
                "new": {"a": 1},
            })
        );
    }
}
