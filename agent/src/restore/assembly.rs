//! **Assembly**: fetches what a plan names, builds the database in a scratch file, and checks it.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use futures::StreamExt as _;
use rusqlite::Connection;
use serde::Deserialize;

use super::plan::{Limit, Plan};
use super::{Keys, fetch, route, soundness};
use crate::capture::blocking;
use crate::catalogue::{RestorePoint, Segment};
use crate::cause;
use crate::chain::{Chain, Link};
use crate::envelope::OpenError;
use crate::header::{Content, DatabaseKind, Header};
use crate::key::seed::SeedError;
use crate::progress::Progress;
use crate::revision::Revision;
use crate::snapshot;
use crate::store::{Store, StoreError};

/// What a bad object does to a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDamage {
    /// Stop it; nothing is restored.
    #[default]
    Fail,
    /// Restore up to it, and say what is missing.
    LastGood,
}

/// Why a database could not be assembled.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// The bucket failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object was refused.
    #[error("{key} {source}")]
    Object {
        /// The object.
        key: String,
        /// Why.
        source: OpenError,
    },
    /// A segment that was written by another writer, or whose predecessor was replaced.
    #[error(
        "{key} does not go on from the object before it: it belongs to another history, or was tampered with"
    )]
    Unlinked {
        /// The object.
        key: String,
    },
    /// Something that was asked for is not in the bucket.
    #[error(
        "what follows revision {reached} is missing: {key} is there, and no object leads to it; look for it in the bucket's older versions, or restore without it with --on-damage last-good"
    )]
    Gap {
        /// Where the way ends.
        reached: Revision,
        /// The first object behind the gap.
        key: String,
    },
    /// An object of the seed format was refused.
    #[error("{key} {source}")]
    Seed {
        /// The object.
        key: String,
        /// Why.
        source: SeedError,
    },
    /// An object could not be fetched to its end.
    #[error("cannot fetch {key}: the target was not touched")]
    Fetch {
        /// The object.
        key: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The scratch file could not be written.
    #[error("cannot write {path}: is the disk full? The target was not touched")]
    Write {
        /// The scratch file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name in the bucket claims a revision that cannot be.
    #[error(
        "the bucket names revision {highest}, far above the {newest} of this backup: remove the object of that name, it is forged or foreign; the target was not touched"
    )]
    Implausible {
        /// The highest revision named.
        highest: Revision,
        /// The newest in the restored database.
        newest: Revision,
    },
    /// SQLite refused what was assembled.
    #[error("the restored database is not sound ({problem}): the target was not touched")]
    Unsound {
        /// What the check found.
        problem: String,
    },
    /// SQLite failed.
    #[error("SQLite failed on the restored database in {path}: the target was not touched")]
    Sqlite {
        /// The scratch file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
}

impl AssemblyError {
    /// Whether one object is bad, and a restore may go around it.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Unlinked { .. } | Self::Gap { .. } => true,
            Self::Object { source, .. } => {
                matches!(
                    source,
                    OpenError::Damaged(_) | OpenError::Swapped { .. } | OpenError::NotSigned { .. }
                )
            }
            _ => false,
        }
    }
}

/// What was assembled.
#[derive(Debug)]
pub struct Assembled {
    /// The header of the snapshot it began with.
    pub header: Header,
    /// The point that it holds.
    pub point: RestorePoint,
    /// What was asked for and is missing, and why.
    pub missing: Option<String>,
    /// What was found to be bad, also where a way around it was found.
    pub damage: Option<AssemblyError>,
    /// The revision that kine goes on from; `None` for a generic database.
    pub bumped_to: Option<Revision>,
}

/// Builds the database of `plan` in the file `scratch`. `highest` is the revision that it must rise above.
pub async fn assemble<S: Store + Clone>(
    store: &S,
    plan: &Plan,
    keys: Keys,
    highest: Revision,
    scratch: &Path,
    on_damage: OnDamage,
    progress: &Progress,
) -> Result<Assembled, AssemblyError> {
    let mut site = Site { store, keys, scratch, progress };
    let mut damage = check_gap(plan).err();
    if on_damage == OnDamage::Fail
        && let Some(gap) = damage
    {
        return Err(gap);
    }
    let mut missing = damage.as_ref().map(|gap| cause::chain(gap));
    // Where two writers went on from the same point, names do not tell which segments are whose.
    let followed = match plan.fork() {
        Some(_) => None,
        None => Some(site.follow(plan, &plan.segments).await),
    };
    let (header, point) = match followed {
        Some(Ok(followed)) => followed,
        Some(Err(error)) if !error.is_damage() => return Err(error),
        damaged => {
            let bad = damaged.and_then(Result::err);
            if let Some(error) = &bad {
                tracing::warn!(error = cause::chain(error), "an object is bad: looking for a way around it");
            }
            let around = site.around(plan, bad, on_damage).await?;
            (missing, damage) = (around.missing.or(missing), around.damage.or(damage));
            (around.header, around.point)
        }
    };
    let path = scratch.to_owned();
    let bumped_to = blocking(move || match header.content {
        Content::Snapshot { database: DatabaseKind::Kine, .. } => {
            soundness::check_and_bump(&path, Some(point.revision), highest)
        }
        // A table that happens to be called kine is not kine's.
        _ => soundness::check(&path).map(|_| None),
    });
    let bumped_to = bumped_to.await?;
    Ok(Assembled { header, point, missing, damage, bumped_to })
}

/// Refuses a plan that does not lead to all that was asked for.
pub(super) fn check_gap(plan: &Plan) -> Result<(), AssemblyError> {
    let reached = plan.newest().revision;
    let gap = |gap: &Segment| AssemblyError::Gap { reached, key: gap.stored.key.clone() };
    plan.gap.as_ref().map(gap).map_or(Ok(()), Err)
}

/// What was assembled around a bad object.
struct Around {
    header: Header,
    point: RestorePoint,
    missing: Option<String>,
    damage: Option<AssemblyError>,
}

/// Where a database is assembled, and from what.
struct Site<'s, S> {
    store: &'s S,
    keys: Keys,
    scratch: &'s Path,
    progress: &'s Progress,
}

impl<S: Store + Clone> Site<'_, S> {
    /// The snapshot, and these segments applied to it.
    async fn follow(
        &mut self,
        plan: &Plan,
        segments: &[Segment],
    ) -> Result<(Header, RestorePoint), AssemblyError> {
        let folder = self.scratch.parent().unwrap_or(Path::new("."));
        let ahead = fetch::ahead(self.store, segments.to_vec(), folder, self.progress);
        let mut ahead = std::pin::pin!(ahead.peekable());
        // The first segments are on their way while the snapshot is fetched.
        let (header, _) = tokio::join!(self.snapshot(plan), ahead.as_mut().peek());
        let header = header?;
        let mut reached = plan.snapshot.0;
        if segments.is_empty() {
            return Ok((header, reached));
        }
        let mut link = begin(&header, reached.revision);
        let mut connection = open(self.scratch)?;
        while let Some(fetched) = ahead.next().await {
            let (segment, mut file) = fetched?;
            let (keys, timeline, limit) = (self.keys.clone(), plan.timeline, plan.limit);
            (connection, link, reached) = blocking(move || {
                let end = route::verify(timeline, &segment, &mut file, &keys, link)?;
                let point = route::apply(&connection, timeline, &segment, &mut file, &keys, reached, limit)?;
                Ok::<_, AssemblyError>((connection, end, point))
            })
            .await?;
        }
        Ok((header, reached))
    }

    /// Another way to the same point, or as far as one leads. What is missing then is said in words.
    async fn around(
        &mut self,
        plan: &Plan,
        mut damage: Option<AssemblyError>,
        on_damage: OnDamage,
    ) -> Result<Around, AssemblyError> {
        let (mut plan, mut from_older) = (plan.clone(), false);
        loop {
            let header = match self.snapshot(&plan).await {
                Err(error) if error.is_damage() && on_damage == OnDamage::LastGood => {
                    let Some(older) = plan.from_older_snapshot() else { return Err(error) };
                    (plan, from_older) = (older, true);
                    damage.get_or_insert(error);
                    continue;
                }
                header => header?,
            };
            let start = begin(&header, plan.snapshot.0.revision);
            let folder = self.scratch.parent().unwrap_or(Path::new("."));
            let found = route::search(self.store, &plan, &self.keys, start, folder, self.progress).await?;
            let end = found.last().map_or(plan.snapshot.0.revision, |segment| segment.to);
            let whole = match plan.limit {
                Limit::Revision(limit) => end >= limit,
                Limit::Moment(_) => plan.segments.last().is_none_or(|last| end >= last.to),
            };
            if !whole && on_damage == OnDamage::Fail {
                let fork = || plan.fork().map_or(&plan.snapshot.1, |end| &end.stored).key.clone();
                return Err(damage.unwrap_or_else(|| AssemblyError::Unlinked { key: fork() }));
            }
            let (header, point) = self.follow(&plan, plan.up_to_limit(&found)).await?;
            if whole {
                if plan.fork().is_some() {
                    tracing::warn!(
                        "two agents wrote to this timeline: what the one wrote that stayed is restored"
                    );
                } else {
                    tracing::warn!(from_older, "a way around it was found: nothing is missing");
                }
                return Ok(Around { header, point, missing: None, damage });
            }
            let until = match plan.limit {
                Limit::Revision(limit) => format!("revision {limit}"),
                Limit::Moment(limit) => format!("{limit}"),
            };
            let why = damage.as_ref().map_or_else(
                || "two agents wrote here, and their segments do not lead on from one another".to_owned(),
                |damage| cause::chain(damage),
            );
            let missing = format!("revisions after {} up to {until} are missing: {why}", point.revision);
            return Ok(Around { header, point, missing: Some(missing), damage });
        }
    }

    async fn snapshot(&self, plan: &Plan) -> Result<Header, AssemblyError> {
        let (name, key) = (plan.snapshot_name(), plan.snapshot.1.key.clone());
        let object = self.store.get(&key).await?;
        let (path, bar, keys) = (self.scratch.to_owned(), self.progress.clone(), self.keys.clone());
        blocking(move || {
            let write = |source| AssemblyError::Write { path: path.clone(), source };
            let mut file = BufWriter::with_capacity(1 << 20, File::create(&path).map_err(write)?);
            let opened =
                snapshot::open(&name, bar.reading(object), &keys.identities, &keys.signers, &mut file);
            let (header, _) = opened.map_err(|source| match source {
                OpenError::Io(source) if source.raw_os_error().is_some() => {
                    AssemblyError::Write { path: path.clone(), source }
                }
                source => AssemblyError::Object { key, source },
            })?;
            file.flush().map_err(write)?;
            Ok(header)
        })
        .await
    }
}

/// The link that a snapshot's header tells.
pub(super) fn begin(header: &Header, revision: Revision) -> Link {
    Link { revision, chain: header.parent.unwrap_or_else(|| Chain::begin(&header.encode())) }
}

/// The scratch database, for rows to be added: nobody else has it, and it is synced as a whole before it is placed.
fn open(path: &Path) -> Result<Connection, AssemblyError> {
    let open = || {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "OFF")?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        connection.pragma_update(None, "cache_size", -8192)?;
        Ok(connection)
    };
    open().map_err(|source| AssemblyError::Sqlite { path: path.to_owned(), source })
}
