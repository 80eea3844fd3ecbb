//! A **span**: a length of time as people write it, `1s`, `30m`, `168h`, `7d`.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// Text that is no span.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not a length of time: write it as 500ms, 1s, 30m, 1h or 7d")]
pub struct NotASpan(String);

/// Reads a span; a day has 24 hours.
pub fn parse(text: &str) -> Result<Duration, NotASpan> {
    let bad = || NotASpan(text.to_owned());
    let span: Span = text.trim().parse().map_err(|_| bad())?;
    let exact = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| bad())?;
    Duration::try_from(exact).map_err(|_| bad())
}

/// Reads a span; a bare number counts minutes, as the Go program's `BACKUP_INTERVAL` did.
pub fn parse_or_minutes(text: &str) -> Result<Duration, NotASpan> {
    match text.trim().parse::<u32>() {
        Ok(minutes) => Ok(Duration::from_secs(u64::from(minutes) * 60)),
        Err(_) => parse(text),
    }
}

/// Reads a span in a configuration file.
pub fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text: Option<String> = serde::Deserialize::deserialize(deserializer)?;
    text.map(|text| parse(&text).map_err(serde::de::Error::custom)).transpose()
}

/// As [`deserialize`]; a bare number counts minutes.
pub fn deserialize_or_minutes<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let text: Option<String> = serde::Deserialize::deserialize(deserializer)?;
    text.map(|text| parse_or_minutes(&text).map_err(serde::de::Error::custom)).transpose()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, millis) in
            [("500ms", 500), ("1s", 1000), ("90m", 5_400_000), ("168h", 604_800_000), ("7d", 604_800_000)]
        {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for text in ["", "soon", "7", "-1s"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse_or_minutes("60").unwrap(), Duration::from_hours(1));
    }
}
