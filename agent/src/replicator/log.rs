//! The **log** in the bucket: where it stands, and how it goes on. It says nothing of when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::ReplicatorError;
use crate::body::Body;
use crate::capture::{Capture, Published, Read, Uploaded, blocking};
use crate::catalogue::{Catalogue, History, RestorePoint};
use crate::chain::{Chain, Link};
use crate::clock::Moment;
use crate::continuity::{self, Continued, Tip};
use crate::database::{DatabaseError, SharedDatabase, lock};
use crate::header::DatabaseKind;
use crate::object_name::ObjectName;
use crate::pin::PinName;
use crate::revision::Revision;
use crate::signing::Digest;
use crate::store::Store;
use crate::timeline::Timeline;

/// A writer that came second goes on until it looks here, every twenty seconds.
const LOSERS_TIME: Duration = Duration::from_secs(30);

/// A timeline that ended so long before another's newest point was left behind by that.
const LEFT_BEHIND: Duration = Duration::from_mins(1);

/// So many older timelines are looked at to find out whether this database was left behind.
const OLDER: usize = 3;

/// Where the log of one database stands.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// Its history.
    pub timeline: Timeline,
    /// When the newest point was captured.
    pub captured: Moment,
    /// The last link, and the digest of its row; `None` for a database that is not kine's.
    pub end: Option<(Link, Digest)>,
}

impl From<&Published> for Standing {
    /// At the snapshot that a timeline begins with.
    fn from(first: &Published) -> Self {
        let (timeline, RestorePoint { revision, captured }) = (first.timeline, first.point);
        Self { timeline, captured, end: first.end.map(|(tip, chain)| (Link { revision, chain }, tip)) }
    }
}

/// A timeline that is gone on with.
#[derive(Debug)]
pub struct Resumed {
    /// Where the log stands now.
    pub standing: Standing,
    /// Its newest point.
    pub newest: RestorePoint,
    /// Its oldest.
    pub oldest: Option<RestorePoint>,
    /// Its newest snapshot.
    pub snapshot: Option<RestorePoint>,
    /// Its newest archive of files.
    pub files: Option<ObjectName>,
}

/// What shipping came to.
#[derive(Debug)]
pub enum Shipped {
    /// There was nothing new.
    Nothing,
    /// A segment was published.
    Segment {
        /// Its name.
        name: ObjectName,
        /// What is in the bucket.
        uploaded: Uploaded,
        /// Its body.
        body: Box<Body>,
        /// Whether more is waiting.
        more: bool,
    },
    /// The database does not go on from where the log stands: a new timeline must begin.
    Broken,
}

/// The one writer of one database's log.
pub struct Log<S> {
    /// What publishes.
    pub capture: Capture<S>,
    standing: Option<Standing>,
    /// Where it stood before the database was opened anew.
    doubted: Option<Standing>,
    /// The newest timeline that was seen: a new one must sort behind it.
    newest: Option<Timeline>,
    /// The pins of this owner, and when each was captured last.
    pinned: BTreeMap<PinName, Moment>,
    /// Another writer on this timeline was looked for up to this link.
    alone_until: Link,
    /// A newer timeline was looked for when the log ended here.
    newest_until: Link,
    looks_for_newer: bool,
    /// Timelines that this process began, or tried to: an upload that seemed to fail may yet arrive.
    begun: Vec<Timeline>,
    /// Until then another writer that came second may go on.
    won_until: Instant,
}

impl<S: Store + Clone> Log<S> {
    /// A log that does not know yet where it stands.
    pub fn new(capture: Capture<S>) -> Self {
        let nowhere = Link { revision: Revision::ZERO, chain: Chain::begin("") };
        Self {
            capture,
            standing: None,
            doubted: None,
            newest: None,
            pinned: BTreeMap::new(),
            alone_until: nowhere,
            newest_until: nowhere,
            looks_for_newer: false,
            begun: Vec::new(),
            won_until: Instant::now(),
        }
    }

    /// Where it stands; `None` until it was resumed or begun.
    pub fn standing(&self) -> Option<Standing> {
        self.standing
    }

    /// What lies at the path may be another database: where the log stands is to be proved again.
    pub fn doubt(&mut self) {
        self.doubted = self.standing.take().or(self.doubted);
    }

    /// Goes on from where it stood before the doubt, if the database does. Costs no request.
    pub async fn keep(&mut self, database: &SharedDatabase) -> Result<Option<Standing>, ReplicatorError> {
        let Some(standing) = self.doubted.take() else { return Ok(None) };
        let Some((link, tip)) = standing.end else { return Ok(None) };
        let database = database.clone();
        let goes_on = blocking(move || {
            let database = lock(&database);
            let is_kine = database.kind() == DatabaseKind::Kine;
            Ok::<_, DatabaseError>(
                is_kine
                    && database.goes_on_from(link.revision, tip)?
                    && !database.jumps_after(link.revision)?,
            )
        })
        .await?;
        self.standing = goes_on.then_some(standing);
        Ok(self.standing)
    }

    /// Goes on with the newest timeline in the bucket, if the database goes it on.
    pub async fn resume(&mut self, database: &SharedDatabase) -> Result<Option<Resumed>, ReplicatorError> {
        let capture = &self.capture;
        let catalogue =
            Catalogue::new(&capture.prefix, &capture.store.list(&capture.prefix.folder(), None).await?);
        self.newest = catalogue.timelines.last_key_value().map(|(timeline, _)| *timeline);
        self.pinned = self.pins_in(&catalogue).await?;
        let Some(tip) = continuity::newest_tip(&capture.store, &capture.prefix, &catalogue).await? else {
            return Ok(None);
        };
        let Some(continued) = self.continued(&tip, database).await? else {
            self.check_not_left_behind(&catalogue, &tip, database).await?;
            return Ok(None);
        };
        let end = match continued {
            Continued::Log { link, tip } => Some((link, tip)),
            Continued::Generic => None,
        };
        let standing = Standing { timeline: tip.timeline, captured: tip.newest.captured, end };
        self.stand(standing);
        let history = catalogue.timelines.get(&tip.timeline);
        Ok(Some(Resumed {
            standing,
            newest: tip.newest,
            oldest: history.and_then(History::oldest),
            snapshot: history.and_then(History::newest_snapshot),
            files: history
                .and_then(|history| history.files.last_key_value())
                .map(|(captured, _)| ObjectName::Files { timeline: tip.timeline, captured: *captured }),
        }))
    }

    /// The pins of this owner that the bucket had when the log was resumed, and when each was captured last.
    pub fn pinned(&self) -> &BTreeMap<PinName, Moment> {
        &self.pinned
    }

    /// Those on older timelines too: a restore must not move a name to what it brought back.
    async fn pins_in(&self, catalogue: &Catalogue) -> Result<BTreeMap<PinName, Moment>, ReplicatorError> {
        let Capture { store, prefix, owner, .. } = &self.capture;
        let mut pinned = BTreeMap::new();
        for (timeline, history) in catalogue.timelines.iter().filter(|(_, history)| !history.pins.is_empty())
        {
            let tip = continuity::tip(store, prefix, *timeline, history).await?;
            if tip.is_some_and(|tip| tip.owner == *owner) {
                // Timelines sort by birth: the later one's count.
                pinned.extend(history.pins.iter().map(|(name, (_, captured))| (name.clone(), *captured)));
            }
        }
        Ok(pinned)
    }

    async fn continued(
        &self,
        tip: &Tip,
        database: &SharedDatabase,
    ) -> Result<Option<Continued>, ReplicatorError> {
        let (owner, database, tip) = (self.capture.owner.clone(), database.clone(), tip.clone());
        Ok(blocking(move || tip.continues(owner.as_ref(), &lock(&database))).await?)
    }

    /// Refuses a database that goes on an older timeline to its end: a newer one was begun from a restore or a copy, and
    /// whoever still runs on this one must not come back as the newest.
    async fn check_not_left_behind(
        &self,
        catalogue: &Catalogue,
        newest: &Tip,
        database: &SharedDatabase,
    ) -> Result<(), ReplicatorError> {
        let Capture { store, prefix, .. } = &self.capture;
        for (timeline, history) in catalogue.timelines.range(..newest.timeline).rev().take(OLDER) {
            let Some(tip) = continuity::tip(store, prefix, *timeline, history).await? else { continue };
            // Those of one agent follow each other closely where an upload arrived late.
            let is_left = tip.newest.captured.plus(LEFT_BEHIND) < newest.newest.captured;
            if is_left && self.continued(&tip, database).await?.is_some() {
                return Err(ReplicatorError::AnotherWriter(format!(
                    "timeline {}, which is newer than this database's {timeline},",
                    newest.timeline
                )));
            }
        }
        Ok(())
    }

    /// Begins a new timeline with a snapshot.
    pub async fn begin(&mut self, database: &SharedDatabase) -> Result<Published, ReplicatorError> {
        let timeline = Timeline::open_after(self.newest, self.capture.clock.now());
        // Also if this fails: the upload may yet arrive, and must not sort behind what comes next.
        self.newest = Some(timeline);
        self.begun.push(timeline);
        self.capture.publish_signer().await?;
        let cancel = CancellationToken::new();
        let published = self.capture.snapshot(database, timeline, None, None, &cancel).await?;
        self.stand(Standing::from(&published));
        Ok(published)
    }

    /// Publishes what is new, up to a bound.
    pub async fn ship(&mut self, database: &SharedDatabase) -> Result<Shipped, ReplicatorError> {
        let Some(standing @ Standing { timeline, captured, end: Some((link, tip)) }) = self.standing else {
            return Ok(Shipped::Nothing);
        };
        let (body, more) = match self.capture.read(database, timeline, link, tip, captured).await? {
            Read::Nothing => return Ok(Shipped::Nothing),
            Read::Broken => {
                self.standing = None;
                return Ok(Shipped::Broken);
            }
            Read::Rows(body, more) => (body, more),
        };
        let name = self.capture.segment_name(&body);
        // Also if this fails: the upload may yet arrive, and what comes after it must not be captured before it.
        self.standing = Some(Standing { captured: body.captured, ..standing });
        let uploaded = self.capture.segment(&body).await?;
        self.standing =
            Some(Standing { captured: body.captured, end: Some((body.end, body.tip)), ..standing });
        Ok(Shipped::Segment { name, uploaded, body: Box::new(body), more })
    }

    /// Looks for another writer: by turns on this timeline and for a newer one. Costs one request, and none if nothing was
    /// shipped since.
    pub async fn look_for_another(&mut self) -> Result<(), ReplicatorError> {
        let Some(Standing { timeline, end: Some((end, _)), .. }) = self.standing else { return Ok(()) };
        self.looks_for_newer = !self.looks_for_newer;
        if self.looks_for_newer {
            if end != self.newest_until {
                self.look_for_newer(timeline).await?;
                self.newest_until = end;
            }
        } else if end != self.alone_until {
            self.look_for_foreign(timeline, end).await?;
        }
        Ok(())
    }

    /// A newer timeline means that this one was superseded, by a restore or a copy of the database.
    async fn look_for_newer(&self, timeline: Timeline) -> Result<(), ReplicatorError> {
        let Capture { store, prefix, .. } = &self.capture;
        // Behind all of this timeline's own.
        let after = format!("{}{timeline}/~", prefix.folder());
        let listed = store.list(&prefix.folder(), Some(&after)).await?;
        let newer = listed.iter().map(|object| object.key.as_str()).find(|key| {
            let other = ObjectName::parse(prefix, key).and_then(|name| name.timeline());
            other.is_some_and(|other| other > timeline && !self.begun.contains(&other))
        });
        newer.map_or(Ok(()), |key| Err(ReplicatorError::AnotherWriter(key.to_owned())))
    }

    /// A foreign segment on this timeline means that two go on from the same link. The one that was started first stays,
    /// and the other stops: both see the other's name and agree.
    async fn look_for_foreign(&mut self, timeline: Timeline, end: Link) -> Result<(), ReplicatorError> {
        let Capture { store, prefix, own_keys, .. } = &self.capture;
        let log = format!("{}{timeline}/log/", prefix.folder());
        let begins = |revision: Revision| format!("{log}{revision:020}-");
        let listed = store.list(&log, Some(&begins(self.alone_until.revision))).await?;
        let foreign = listed.into_iter().map(|object| object.key).find(|key| {
            matches!(ObjectName::parse(prefix, key), Some(ObjectName::Segment { .. }))
                && !own_keys.contains(key)
        });
        if let Some(key) = foreign.filter(|_| Instant::now() >= self.won_until) {
            // One that was merged away meanwhile is found in what replaced it, at the next look.
            let Some(metadata) = store.head(&key).await? else { return Ok(()) };
            if metadata.get(continuity::WRITER).is_none_or(|writer| *writer < own_keys.writer()) {
                return Err(ReplicatorError::AnotherWriter(key));
            }
            tracing::warn!(object = key, "another agent wrote here; it came second and must stop");
            self.won_until = Instant::now() + LOSERS_TIME;
        }
        own_keys.forget_before(&log, &begins(end.revision));
        self.alone_until = end;
        Ok(())
    }

    fn stand(&mut self, standing: Standing) {
        if let Some((link, _)) = standing.end {
            self.alone_until = link;
        }
        self.standing = Some(standing);
    }
}
