//! **Fatal**: why a request is refused. Crossplane applies nothing then, and shows the sentence to the user;
//! so it names the field, the cause and the way out, in that order.

use std::fmt;

use crate::condition::{Kind, Reason};

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {cause}; {way_out}")]
pub struct Fatal {
    field: String,
    cause: String,
    way_out: String,
    condition: Kind,
    reason: Reason,
}

impl Fatal {
    /// Refuses `field`. Neither text may hold a value that could be secret.
    pub fn new(field: impl fmt::Display, cause: impl fmt::Display, way_out: impl fmt::Display) -> Self {
        let field = field.to_string();
        let condition = if field.starts_with("spec.restore") { Kind::Restored } else { Kind::ClusterReady };
        Self {
            field,
            cause: cause.to_string(),
            way_out: way_out.to_string(),
            condition,
            reason: Reason::Refused,
        }
    }

    /// Which condition turns false, and for what reason; unless said `Refused`, of `Restored` for what is in
    /// `spec.restore`, of `ClusterReady` for all else.
    #[must_use]
    pub fn shown_as(self, condition: Kind, reason: Reason) -> Self {
        Self { condition, reason, ..self }
    }

    /// The condition that turns false.
    pub fn condition(&self) -> Kind {
        self.condition
    }

    /// The condition's reason.
    pub fn reason(&self) -> Reason {
        self.reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_cause_and_way_out_in_one_sentence() {
        let fatal =
            Fatal::new("spec.version", "chart 0.29.1 cannot carry the sidecar", "use 0.30.0 or newer");
        assert_eq!(
            fatal.to_string(),
            "spec.version: chart 0.29.1 cannot carry the sidecar; use 0.30.0 or newer"
        );
        assert_eq!((fatal.condition(), fatal.reason()), (Kind::ClusterReady, Reason::Refused));
        assert_eq!(Fatal::new("spec.restore.from", "x", "y").condition(), Kind::Restored);
    }
}
