//! **Looking** at the database: opened, and opened anew when another file lies at its path; what it has that is new.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::log::Standing;
use super::{Replicator, ReplicatorError};
use crate::capture::blocking;
use crate::database::{Database, DatabaseError, News, Position, SharedDatabase, lock};
use crate::header::DatabaseKind;
use crate::store::Store;

/// What a look at the database showed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) version: i64,
    /// Of kine's alone.
    pub(super) position: Option<Position>,
    /// What is after the log's end and was not seen before.
    news: Option<News>,
}

impl<S: Store + Clone> Replicator<S> {
    /// The open database; opened anew if another file lies at the path.
    pub(super) async fn open(&mut self) -> Result<SharedDatabase, ReplicatorError> {
        let path = (self.find)();
        if let Some(database) = &self.database {
            let current = {
                let database = lock(database);
                database.path() == path && database.is_current()
            };
            if current {
                return Ok(database.clone());
            }
            // Another file, or the same after someone wrote to it while it was thought at rest.
            self.log.doubt();
        }
        // Closed before it is opened again: see `Database::refresh`.
        self.close().await;
        let observer = self.report.read_observer();
        let database = blocking(move || Database::open(&path, observer)).await?;
        tracing::debug!(database = %database.path().display(), "opened");
        let database = Arc::new(Mutex::new(database));
        self.database = Some(database.clone());
        Ok(database)
    }

    pub(super) async fn close(&mut self) {
        if let Some(underway) = self.underway.take() {
            underway.give_up().await;
        }
        // What this connection counts as a version has no meaning for another.
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.version = None;
        }
        (self.database, self.look) = (None, None);
    }

    /// Looks at the database; what has not changed since the last look is not read again.
    pub(super) async fn look(
        &mut self,
        database: &SharedDatabase,
        standing: Standing,
    ) -> Result<Look, ReplicatorError> {
        let (shared, last) = (database.clone(), self.look);
        let unseen = standing.end.and_then(|(link, _)| self.schedule.unseen_after(link.revision));
        let shipped = standing.end.map(|(link, _)| link.revision);
        let look = blocking(move || {
            let database = lock(&shared);
            let version = database.data_version()?;
            if let Some(last) = last.filter(|last| last.version == version) {
                return Ok(Look { news: None, ..last });
            }
            if database.kind() == DatabaseKind::Generic {
                return Ok(Look { version, position: None, news: None });
            }
            let position = database.position()?;
            let news = match (shipped, unseen) {
                // Set back: shipping finds out.
                (Some(shipped), _) if position.live < shipped => Some(News::Busy),
                (Some(shipped), Some(unseen)) if position.live > shipped.max(unseen) => {
                    Some(database.news_after(unseen)?)
                }
                _ => None,
            };
            Ok::<_, DatabaseError>(Look { version, position: Some(position), news })
        })
        .await?;
        if let Some(news) = look.news {
            self.schedule.found(news, Instant::now());
        }
        if let Some(position) = look.position {
            self.report.looked(position);
        }
        self.look = Some(look);
        Ok(look)
    }
}
