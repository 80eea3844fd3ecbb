//! The **progress** of a restore: what is asked for, what the agent says of it, and what the user is told.

use serde_json::{Map, Value, json};

use crate::condition::{Condition, Kind, Reason};
use crate::object::text;
use crate::report::Report;
use crate::source::Source;
use crate::subject::Subject;

/// How far a restore is that is asked for.
pub struct Progress {
    /// None if none is asked for.
    condition: Option<Condition>,
}

impl Progress {
    /// By the agent's report, and by what there is of the source.
    pub fn of(subject: &Subject, report: &Report, source: &Source) -> Self {
        let condition = subject.xr.spec.restore.as_ref().map(|restore| {
            if subject.pending_restore(report.restored_id.as_deref()).is_none() {
                let message = format!(
                    "Restore {} is done; take spec.restore out, or ask for another under a new id.",
                    restore.id
                );
                return Condition::yes(Kind::Restored, Reason::Done, message);
            }
            let (reason, message) = pending(&restore.id, report, source);
            Condition::no(Kind::Restored, reason, message)
        });
        Self { condition }
    }

    /// What the user is told, if a restore is asked for.
    pub fn condition(&self) -> Option<&Condition> {
        self.condition.as_ref()
    }

    /// The XR's `status.restore`. One that is no longer asked for is remembered: asked for again under the same id it
    /// is done already, and the control plane is not restarted because it is not.
    pub fn status(&self, subject: &Subject, report: &Report) -> Option<Value> {
        let remembered = subject.remembered_restore();
        let Some((restore, condition)) = subject.xr.spec.restore.as_ref().zip(self.condition()) else {
            let mut remembered = remembered?.clone();
            let id = text(&remembered, &["id"]);
            let is_done = id.is_some() && id == report.restored_id.as_deref();
            if is_done || text(&remembered, &["phase"]) != Some("Done") {
                remembered["phase"] = json!(if is_done { "Done" } else { "Withdrawn" });
            }
            return Some(remembered);
        };
        let mut status = Map::from_iter([
            ("id".to_owned(), json!(restore.id)),
            ("phase".to_owned(), json!(condition.reason.to_string())),
        ]);
        let before = remembered.filter(|status| text(status, &["id"]) == Some(&restore.id));
        let message = match condition.reason {
            Reason::Failed => report.message.as_deref(),
            // What was restored, in the agent's words; it goes on to say other things.
            Reason::Done if report.phase.as_deref() == Some("Restored") => report.message.as_deref(),
            Reason::Done => before.and_then(|status| text(status, &["message"])),
            _ => None,
        };
        if let Some(message) = message {
            status.insert("message".into(), json!(message));
        }
        status.insert("point".into(), json!(restore.point()));
        Some(Value::Object(status))
    }
}

fn pending(id: &str, report: &Report, source: &Source) -> (Reason, String) {
    match source {
        Source::Missing(reason, message) => return (*reason, message.clone()),
        Source::Unresolved => {
            return (Reason::Pending, format!("The source of restore {id} is being looked for."));
        }
        Source::Own | Source::Found(_) => {}
    }
    match report.phase.as_deref() {
        Some("AwaitingKey") => {
            (Reason::AwaitingKey, format!("Restore {id} waits for the identity, which is being handed over."))
        }
        Some("Restoring") => (Reason::Restoring, format!("Restore {id} is being done.")),
        Some("Failed") => {
            let own_words = report.message.as_deref().unwrap_or("it does not say why; look at its logs");
            (Reason::Failed, format!("Restore {id} failed and is tried again. The agent says: {own_words}"))
        }
        _ => (Reason::Pending, format!("Restore {id} is done when the control plane starts next.")),
    }
}
