//! A **span**: a length of time as people write it, `1s`, `30m`, `168h`, `7d`. It stays the text that it was,
//! for the agent reads the same.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use jiff::SpanRelativeTo;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::schema;

/// A length of time, more than none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span {
    text: String,
    length: Duration,
}

/// Text that is no span.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not a length of time: write it as 500ms, 1s, 30m, 1h or 7d")]
pub struct NotASpan(String);

impl Span {
    /// A default: `text`, which is `seconds` long.
    pub(crate) fn known(text: &str, seconds: u64) -> Self {
        Self { text: text.to_owned(), length: Duration::from_secs(seconds) }
    }

    /// How long it is.
    pub fn length(&self) -> Duration {
        self.length
    }
}

impl TryFrom<String> for Span {
    type Error = NotASpan;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let length = text
            .parse::<jiff::Span>()
            .ok()
            .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok())
            .and_then(|length| Duration::try_from(length).ok())
            .filter(|length| !length.is_zero());
        match length {
            Some(length) => Ok(Self { text, length }),
            None => Err(NotASpan(text)),
        }
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.text
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": schema::SPAN, "maxLength": 32})
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn spans_keep_their_text() {
        for (text, seconds) in [("1s", 1), ("90m", 5400), ("168h", 604_800), ("7d", 604_800)] {
            let span = Span::try_from(text.to_owned()).unwrap();
            assert_eq!((span.to_string().as_str(), span.length()), (text, Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn nothing_and_less_are_no_spans() {
        for text in ["", "0s", "-1s", "soon", "7"] {
            assert!(Span::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
