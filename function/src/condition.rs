//! **Conditions**: what the user is told, on the XR and on its claim. Types and reasons are a published
//! contract: they may be added, never renamed.

use std::fmt;

/// A condition's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The keys of the backup are there.
    CredentialsReady,
    /// The identity is out of reach of the vcluster's pod.
    KeySealed,
    /// Somebody else can read the backup when the XR and its host cluster are gone.
    KeyEscrowed,
    /// The bucket and the way in are there.
    StorageReady,
    /// The vcluster is installed.
    ClusterReady,
    /// The agent's captures arrive.
    BackupHealthy,
    /// A restore was tried out, not too long ago.
    BackupVerified,
    /// The restore that was asked for is done.
    Restored,
    /// The vcluster is known to Rancher.
    ClusterRegistered,
}

impl Kind {
    /// All of them, in the order in which they are reported.
    pub const ALL: [Self; 9] = [
        Self::CredentialsReady,
        Self::KeySealed,
        Self::KeyEscrowed,
        Self::StorageReady,
        Self::ClusterReady,
        Self::BackupHealthy,
        Self::BackupVerified,
        Self::Restored,
        Self::ClusterRegistered,
    ];
}

/// A condition's reason: one word for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the sentence beside it says what it means
pub enum Reason {
    // several
    Disabled,
    Refused,
    Failed,
    Registering,
    Registered,
    // CredentialsReady
    Resolving,
    IdentityTaken,
    IdentityIssued,
    AwaitingNamespace,
    AwaitingStorageSecret,
    Applying,
    Issued,
    AwaitingIdentity,
    Rotating,
    KeysRotated,
    IdentityMissing,
    IdentityChanged,
    IdentityInvalid,
    // KeySealed
    KeptApart,
    Derived,
    InNamespace,
    OpenForRestore,
    // KeyEscrowed
    MasterKey,
    PlatformRecipient,
    UserRecipient,
    NotEscrowed,
    // StorageReady
    CreatingBucket,
    CreatingPolicy,
    CreatingUser,
    Provisioned,
    Given,
    RegistrationFailed,
    CertificateMissing,
    // ClusterReady
    Installing,
    InstallFailed,
    Installed,
    AwaitingBackup,
    AwaitingRestorePoint,
    UpgradeGuarded,
    UpgradeUnguarded,
    ValueDenied,
    ValueOverridden,
    NamespaceDenied,
    // BackupHealthy
    NotReported,
    AwaitingKey,
    Asleep,
    Stale,
    Failing,
    Replicating,
    // BackupVerified
    NotYetVerified,
    Overdue,
    Verified,
    // Restored
    Pending,
    SourceMissing,
    SourceNotReady,
    NotShared,
    Restoring,
    Done,
    // ClusterRegistered
    AwaitingClusterId,
    AwaitingToken,
    AwaitingCluster,
    Importing,
    ImportFailed,
    Disconnected,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A condition's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody knows.
    Unknown,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Its type.
    pub kind: Kind,
    /// Whether it holds.
    pub status: Status,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people, and what to do.
    pub message: String,
}

impl Condition {
    /// It holds.
    pub fn yes(kind: Kind, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, status: Status::True, reason, message: message.into() }
    }

    /// It does not hold.
    pub fn no(kind: Kind, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, status: Status::False, reason, message: message.into() }
    }

    /// Nobody knows.
    pub fn unknown(kind: Kind, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, status: Status::Unknown, reason, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_types_are_a_contract() {
        assert_eq!(
            Kind::ALL.map(|kind| kind.to_string()),
            [
                "CredentialsReady",
                "KeySealed",
                "KeyEscrowed",
                "StorageReady",
                "ClusterReady",
                "BackupHealthy",
                "BackupVerified",
                "Restored",
                "ClusterRegistered",
            ]
        );
    }
}
