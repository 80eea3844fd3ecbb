//! **Exit codes**: the one place that maps errors to them. `vcluster-backup --help` lists them.

use std::process::ExitCode;

use crate::capture::CaptureError;
use crate::cause;
use crate::envelope::OpenError;
use crate::files::FilesError;
use crate::key::KeyError;
use crate::key::seed::SeedError;
use crate::keyring::KeyringError;
use crate::replicator::ReplicatorError;
use crate::restore::RestoreError;
use crate::restore::assembly::AssemblyError;
use crate::restore::beside::BesideError;
use crate::restore::placement::PlacementError;
use crate::restore::plan::PlanError;
use crate::settings::SettingsError;
use crate::signing::KeyFormatError;
use crate::store::StoreError;
use crate::verify::{Blame, Finding, VerifyError};

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All was done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The command line or configuration is wrong.
    Usage = 2,
    /// It was done but for objects that are bad.
    Partial = 3,
    /// There is no backup, or not of that point.
    NothingToRestore = 10,
    /// Another writer ships to the same timeline.
    AnotherWriter = 11,
    /// The key does not fit, or an object was tampered with.
    WrongKey = 12,
    /// There is a database where one should be restored.
    TargetExists = 13,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error of a verb that has its own exit code.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// A database is in the way.
    #[error("{0} exists: nothing was restored; --force replaces it and keeps it as {0}.before-restore-TIME")]
    TargetExists(String),
    /// A file is in the way.
    #[error("{0} exists: it was left as it is; remove it, or choose another --output")]
    Occupied(String),
    /// The bucket holds less than it must.
    #[error(
        "the newest revision in the bucket is {newest}, expected at least {expected}: the bucket was rolled back, or it is another cluster's; nothing was restored"
    )]
    RolledBack {
        /// What the bucket holds.
        newest: String,
        /// What was expected.
        expected: String,
    },
    /// No key to decrypt with.
    #[error("no identity is given: name its file with --identity-file, or give the passphrase as ENC_KEY")]
    NoIdentity,
    /// Wrong use that the command line's grammar cannot tell.
    #[error("{0}")]
    Usage(String),
    /// There is nothing.
    #[error("{0}")]
    Nothing(String),
    /// The control plane must not start on what is there.
    #[error("{0}")]
    NotReady(String),
}

/// The exit code of an error.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    error.chain().find_map(classify).unwrap_or(Exit::Failed)
}

/// The error and its causes in one line, each once: a transparent error repeats its source.
pub fn told(error: &anyhow::Error) -> String {
    cause::chain(error.as_ref())
}

/// An error may be wrapped in those of the modules above its own, and a transparent wrapper hides it from the
/// chain of causes: so each wrapper is taken off by hand.
fn classify(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(error) = cause.downcast_ref::<VerbError>() {
        return Some(of_verb(error));
    }
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        return Some(of_store(error));
    }
    if let Some(error) = cause.downcast_ref::<KeyError>() {
        return Some(of_key(error));
    }
    if let Some(error) = cause.downcast_ref::<OpenError>() {
        return Some(of_open(error));
    }
    if let Some(error) = cause.downcast_ref::<KeyringError>() {
        return Some(match error {
            KeyringError::Key(error) => of_key(error),
            KeyringError::Store(error) => of_store(error),
        });
    }
    if let Some(error) = cause.downcast_ref::<RestoreError>() {
        return Some(of_restore(error));
    }
    if let Some(error) = cause.downcast_ref::<VerifyError>() {
        return Some(match error {
            VerifyError::Store(error) => of_store(error),
            VerifyError::Plan(_) => Exit::NothingToRestore,
            VerifyError::Restore(error) => of_restore(error),
        });
    }
    if let Some(error) = cause.downcast_ref::<CaptureError>() {
        return Some(of_capture(error));
    }
    if let Some(error) = cause.downcast_ref::<ReplicatorError>() {
        return Some(match error {
            ReplicatorError::Capture(error) => of_capture(error),
            ReplicatorError::Store(error) => of_store(error),
            ReplicatorError::AnotherWriter(_) => Exit::AnotherWriter,
            ReplicatorError::Unshipped(_) => Exit::Failed,
        });
    }
    if let Some(error) = cause.downcast_ref::<FilesError>() {
        return Some(of_files(error));
    }
    if cause.is::<PlanError>() {
        return Some(Exit::NothingToRestore);
    }
    if cause.is::<SettingsError>() || cause.is::<KeyFormatError>() {
        return Some(Exit::Usage);
    }
    cause.is::<SeedError>().then_some(Exit::WrongKey)
}

/// What was found to be wrong is an answer, and no error.
impl From<&Finding> for Exit {
    fn from(found: &Finding) -> Self {
        match found.problem.as_ref().map(|problem| problem.blame) {
            None => Self::Done,
            Some(Blame::Damage) => Self::Partial,
            Some(Blame::Tampering) => Self::WrongKey,
        }
    }
}

fn of_restore(error: &RestoreError) -> Exit {
    match error {
        RestoreError::Assembly(error) => of_assembly(error),
        RestoreError::Beside(error) => of_beside(error),
        RestoreError::Placement(PlacementError::Appeared(_)) => Exit::TargetExists,
        RestoreError::Placement(_) => Exit::Failed,
        RestoreError::Owner { .. } => Exit::WrongKey,
    }
}

fn of_verb(error: &VerbError) -> Exit {
    match error {
        VerbError::TargetExists(_) | VerbError::Occupied(_) => Exit::TargetExists,
        VerbError::RolledBack { .. } => Exit::WrongKey,
        VerbError::NoIdentity | VerbError::Usage(_) => Exit::Usage,
        VerbError::Nothing(_) => Exit::NothingToRestore,
        VerbError::NotReady(_) => Exit::Failed,
    }
}

fn of_store(error: &StoreError) -> Exit {
    match error {
        StoreError::NotFound(_) => Exit::NothingToRestore,
        StoreError::Exists(_) => Exit::AnotherWriter,
        StoreError::Settings(_) | StoreError::NoCredentials => Exit::Usage,
        _ => Exit::Failed,
    }
}

fn of_key(error: &KeyError) -> Exit {
    match error {
        KeyError::WrongPassphrase { .. } | KeyError::Tampered { .. } => Exit::WrongKey,
        KeyError::Recipient(_) | KeyError::NoRecipient | KeyError::NoIdentity(_) => Exit::Usage,
        KeyError::Read { .. } => Exit::Failed,
    }
}

fn of_open(error: &OpenError) -> Exit {
    match error {
        OpenError::Io(_) | OpenError::Header(_) => Exit::Failed,
        _ => Exit::WrongKey,
    }
}

fn of_assembly(error: &AssemblyError) -> Exit {
    match error {
        AssemblyError::Store(error) => of_store(error),
        AssemblyError::Object { source, .. } => of_open(source),
        AssemblyError::Seed { .. }
        | AssemblyError::Implausible { .. }
        | AssemblyError::Unlinked { .. }
        | AssemblyError::Gap { .. } => Exit::WrongKey,
        _ => Exit::Failed,
    }
}

fn of_beside(error: &BesideError) -> Exit {
    match error {
        BesideError::Store(error) => of_store(error),
        BesideError::Object { source, .. } => of_open(source),
        BesideError::Files(error) => of_files(error),
        BesideError::Secrets(_) => Exit::Failed,
    }
}

fn of_files(error: &FilesError) -> Exit {
    match error {
        FilesError::Path(_) => Exit::Usage,
        FilesError::Refused { .. } => Exit::WrongKey,
        _ => Exit::Failed,
    }
}

fn of_capture(error: &CaptureError) -> Exit {
    match error {
        CaptureError::Store(error) => of_store(error),
        _ => Exit::Failed,
    }
}
