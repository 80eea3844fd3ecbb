//! **Typed** reading of what people write: every mistake is named with its path.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::fatal::Fatal;

/// Reads `value`, which the user knows as `root`.
pub fn parse<T: DeserializeOwned>(value: &Value, root: &str) -> Result<T, Fatal> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.inner().to_string();
        let field = if path == "." { root.to_owned() } else { format!("{root}.{path}") };
        // Names of fields are typed by people too.
        if has_identity(&field) || has_identity(&cause) {
            let way_out = "take it out, and make a new key if somebody may have seen it";
            return Fatal::new(
                root,
                "it holds an age identity, which is secret and belongs nowhere here",
                way_out,
            );
        }
        let way_out =
            if cause.starts_with("unknown field") { "check its spelling and place" } else { "correct it" };
        Fatal::new(field, shown(&cause), way_out)
    })
}

fn has_identity(text: &str) -> bool {
    text.to_ascii_uppercase().contains("AGE-SECRET-KEY")
}

/// The cause without the value: what was typed in the wrong place may be secret.
fn shown(cause: &str) -> String {
    match (cause.find(" string \""), cause.rfind("\", expected ")) {
        (Some(begin), Some(end)) if begin < end => format!("{} string{}", &cause[..begin], &cause[end + 1..]),
        _ => cause.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    #[derive(Default)]
    struct Outer {
        inner: Inner,
        list: Vec<Inner>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Inner {
        count: u32,
    }

    #[test]
    fn what_was_typed_is_not_shown() {
        for typed in ["hunter2", "a \", expected b"] {
            let message = parse::<Outer>(&json!({"list": typed}), "spec").unwrap_err().to_string();
            assert_eq!(message, "spec.list: invalid type: string, expected a sequence; correct it");
        }
        let message = parse::<Outer>(&json!({"age-secret-key-1x": 1}), "spec").unwrap_err().to_string();
        assert!(!message.contains("1x"), "{message}");
    }

    #[test]
    fn mistakes_are_named_with_their_path() {
        for (value, field, cause) in [
            (json!({"innner": {}}), "spec.innner: ", "unknown field `innner`"),
            (json!({"inner": {"cuont": 1}}), "spec.inner.cuont: ", "unknown field `cuont`"),
            (json!({"list": [{}, {"cuont": 1}]}), "spec.list[1].cuont: ", "expected `count`"),
            (json!({"inner": {"count": "1"}}), "spec.inner.count: ", "expected u32"),
            (json!({"inner": {"count": -1}}), "spec.inner.count: ", "expected u32"),
            (json!({"inner": 7}), "spec.inner: ", "invalid type"),
            (json!("text"), "spec: ", "invalid type"),
        ] {
            let message = parse::<Outer>(&value, "spec").unwrap_err().to_string();
            assert!(message.starts_with(field) && message.contains(cause), "{value}: {message}");
        }
        assert_eq!(parse::<Outer>(&json!({"inner": {"count": 2}}), "spec").unwrap().inner.count, 2);
        assert!(parse::<Outer>(&json!({}), "spec").unwrap().list.is_empty());
    }
}
