//! The **way** of a restored database through the revisions after one snapshot.

#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::{Connection, params_from_iter};
use tempfile::TempDir;
use vcluster_backup::catalogue::Segment;
use vcluster_backup::chain::Chain;
use vcluster_backup::envelope::OpenError;
use vcluster_backup::object_name::ObjectName;
use vcluster_backup::restore::plan::Plan;
use vcluster_backup::revision::Revision;
use vcluster_backup::row::{self, Row};
use vcluster_backup::segment::{self, Step};
use vcluster_backup::signing::Signers;
use vcluster_backup::snapshot;
use vcluster_backup::timeline::Timeline;

use super::world::World;

/// A database on its way through the revisions after one snapshot.
pub struct Way {
    pub base: ObjectName,
    /// Kept as long as the connection.
    _file: TempDir,
    pub connection: Connection,
    reached: Revision,
    /// The chain at each revision since.
    links: HashMap<Revision, Chain>,
    taken: BTreeSet<String>,
    ahead: BTreeMap<Revision, Row>,
}

impl Way {
    pub fn begin(world: &World, plan: &Plan) -> Self {
        let file = tempfile::tempdir().unwrap();
        let path = file.path().join("state.db");
        let mut out = std::fs::File::create(&path).unwrap();
        let object = world.store.object(&plan.snapshot.1.key).unwrap();
        let base = plan.snapshot_name();
        let (header, _) =
            snapshot::open(&base, &object[..], &world.keys().identities, &Signers::default(), &mut out)
                .unwrap();
        let chain = header.parent.unwrap_or_else(|| Chain::begin(&header.encode()));
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "synchronous", "OFF").unwrap();
        connection.pragma_update(None, "journal_mode", "OFF").unwrap();
        let reached = plan.snapshot.0.revision;
        let (links, taken, ahead) = (HashMap::from([(reached, chain)]), BTreeSet::new(), BTreeMap::new());
        Self { base, _file: file, connection, reached, links, taken, ahead }
    }

    /// Reads a segment of a plan, and holds it against the chain.
    pub fn take(&mut self, world: &World, timeline: Timeline, segment: &Segment) {
        if !self.taken.insert(segment.stored.key.clone()) {
            return;
        }
        let object = world.store.object(&segment.stored.key).unwrap();
        let (mut rows, mut linked) = (Vec::new(), false);
        let known = &self.links;
        let header = segment::read::<OpenError>(
            &segment.name(timeline),
            &object[..],
            &world.keys().identities,
            &Signers::default(),
            &mut |step| {
                if let Step::Row(row, chain) = step {
                    if let Some(known) = known.get(&row.revision) {
                        assert_eq!(*known, chain, "the chain differs at {}", row.revision);
                        linked = true;
                    }
                    rows.push((row, chain));
                }
                Ok(())
            },
        );
        let header = header.unwrap();
        if let Some(known) = self.links.get(&segment.from) {
            assert_eq!(header.parent, Some(*known), "{} names another parent", segment.stored.key);
            linked = true;
        }
        assert!(linked, "{} leads on from nothing", segment.stored.key);
        for (row, chain) in rows {
            self.links.insert(row.revision, chain);
            self.ahead.insert(row.revision, row);
        }
    }

    pub fn go_to(&mut self, revision: Revision) {
        let mut apply = self.connection.prepare_cached(row::APPLY).unwrap();
        for (_, row) in self.ahead.range(self.reached.plus(1)..=revision) {
            apply.execute(params_from_iter(&row.cells)).unwrap();
        }
        self.reached = self.reached.max(revision);
    }
}
