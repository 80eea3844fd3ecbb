//! The **restart** that a restore needs: `ensure` does it before the control plane starts, so the pod must be made
//! anew, once per id, and not before the agent's settings tell of the restore. The id then stays in the pod, done
//! or not, asked for or not: to take it out would be another restart.

use crate::chart::generation::{self, Mark};
use crate::config;
use crate::names::key;
use crate::object::{at, text};
use crate::sidecar::ENSURE;
use crate::subject::Subject;

/// What tells the pods of two restores apart.
pub const MARK: Mark = Mark { variable: "VCB_RESTORE_ID", annotation: "vcluster-backup.io/restore-id" };

/// The id that is to be in the pod, given the one that the agent reports as done.
pub fn id(subject: &Subject, restored: Option<&str>) -> Option<String> {
    let pending = subject.pending_restore(restored).map(|restore| restore.id.as_str());
    let Some(release) = subject.request.observed(key::CLUSTER) else {
        // It starts anyway. What is done is remembered, or the start after that would be another pod's.
        let remembered = subject.remembered_restore().and_then(|status| text(status, &["id"]));
        return pending.or(remembered).map(str::to_owned);
    };
    let current = at(release, &["spec", "forProvider", "values"])
        .and_then(|values| generation::mark_in(values, ENSURE, MARK));
    pending.filter(|id| is_configured(subject, id)).or(current).map(str::to_owned)
}

/// Whether the agent's settings, as observed, ask for this restore.
fn is_configured(subject: &Subject, id: &str) -> bool {
    config::observed(subject.request).is_some_and(|settings| text(&settings, &["restore", "id"]) == Some(id))
}
