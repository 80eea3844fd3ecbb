//! A **recipient**: the public age key that a backup is encrypted to.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::schema;

/// A public age key, `age1…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Recipient(String);

/// Text that is no recipient. It is never shown: somebody may have put an identity there.
#[derive(Debug, thiserror::Error)]
#[error(
    "this is no age recipient, which begins with age1 and is what `vcluster-backup keygen` prints to stderr"
)]
pub struct NotARecipient;

impl TryFrom<String> for Recipient {
    type Error = NotARecipient;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.trim().parse::<age::x25519::Recipient>().map(Self::from).map_err(|_| NotARecipient)
    }
}

impl From<age::x25519::Recipient> for Recipient {
    fn from(recipient: age::x25519::Recipient) -> Self {
        Self(recipient.to_string())
    }
}

impl From<Recipient> for String {
    fn from(recipient: Recipient) -> Self {
        recipient.0
    }
}

impl JsonSchema for Recipient {
    fn schema_name() -> Cow<'static, str> {
        "Recipient".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": schema::RECIPIENT, "maxLength": 62})
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_in_the_wrong_place_is_refused_and_not_shown() {
        let secret = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
        let error = Recipient::try_from(secret.to_owned()).unwrap_err().to_string();
        assert!(!error.contains("SECRET"), "{error}");
    }

    #[test]
    fn one_wrong_letter_is_noticed() {
        let good = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
        assert_eq!(Recipient::try_from(format!(" {good}\n")).unwrap().to_string(), good);
        assert!(Recipient::try_from(good.replace("t7rx", "t7ry")).is_err());
        assert!(Recipient::try_from(String::new()).is_err());
    }
}
