//! **Escrow**: who can read the backup when the XR, or its host cluster, is gone. A key that dies with its
//! cluster is no backup.

use crate::condition::{Condition, Kind, Reason};
use crate::fatal::Fatal;
use crate::input::Input;
use crate::recipient::Recipient;
use crate::spec::Spec;

/// Tells who can; refuses if somebody must and nobody does. `own` are the cluster's recipients, which die with
/// it and do not count.
pub fn escrow(input: &Input, spec: &Spec, own: &[&Recipient], has_master: bool) -> Result<Condition, Fatal> {
    let kind = Kind::KeyEscrowed;
    let outlives = |recipients: &[Recipient]| recipients.iter().any(|recipient| !own.contains(&recipient));
    if has_master {
        return Ok(Condition::yes(kind, Reason::MasterKey, "The platform's master key reads this backup."));
    }
    if outlives(&input.encryption.recipients) {
        return Ok(Condition::yes(
            kind,
            Reason::PlatformRecipient,
            "A key of the platform reads this backup.",
        ));
    }
    if outlives(&spec.backup.recipients) {
        let message = "A key of the user reads this backup; keep its identity safe.";
        return Ok(Condition::yes(kind, Reason::UserRecipient, message));
    }
    if input.encryption.require_escrow {
        return Err(Fatal::new(
            "input.encryption.requireEscrow",
            "nobody could read this backup once the XR or its host cluster is gone",
            "make a key with `vcluster-backup keygen` and put its recipient into encryption.recipients of the Input or spec.backup.recipients, or pass a master-key",
        )
        .shown_as(kind, Reason::NotEscrowed));
    }
    Ok(Condition::no(
        kind,
        Reason::NotEscrowed,
        "The only key that reads this backup dies with this XR: add a recipient of your own (`vcluster-backup keygen`) to spec.backup.recipients.",
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::condition::Status;

    const OWN: &str = "age1zwlyl6h27gzv0lfntr7fcqrjrzqazap8sy5zylkxwneh7llf0dksu37mwt";
    const OTHER: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

    #[test]
    fn only_a_key_that_outlives_the_cluster_counts() {
        let own = Recipient::try_from(OWN.to_owned()).unwrap();
        for (platform, user, master, reason) in [
            (json!([]), json!([]), false, None),
            (json!([OWN]), json!([OWN]), false, None),
            (json!([OWN, OTHER]), json!([]), false, Some(Reason::PlatformRecipient)),
            (json!([]), json!([OTHER]), false, Some(Reason::UserRecipient)),
            (json!([]), json!([]), true, Some(Reason::MasterKey)),
        ] {
            for required in [true, false] {
                let encryption = json!({"recipients": platform, "requireEscrow": required});
                let input: Input = serde_json::from_value(json!({"encryption": encryption})).unwrap();
                let spec: Spec = serde_json::from_value(json!({"backup": {"recipients": user}})).unwrap();
                let told = escrow(&input, &spec, &[&own], master);
                match reason {
                    Some(reason) => assert_eq!(told.unwrap().reason, reason),
                    None if required => assert_eq!(told.unwrap_err().condition(), Kind::KeyEscrowed),
                    None => assert_eq!(told.unwrap().status, Status::False),
                }
            }
        }
    }
}
