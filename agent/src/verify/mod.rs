//! **Verification**: is there a way back? A drill restores a point in full, as any restore does, into a scratch file; a
//! quick one reads every object on the way; without an identity there is only what names tell. What it came to is
//! [recorded](record) in the bucket.

pub mod record;

use std::time::{Duration, Instant};

use crate::catalogue::{Catalogue, RestorePoint};
use crate::cause;
use crate::clock::Moment;
use crate::envelope::OpenError;
use crate::object_name::Prefix;
use crate::progress::Progress;
use crate::restore::assembly::AssemblyError;
use crate::restore::beside::BesideError;
use crate::restore::drill::{Drilled, drill};
use crate::restore::plan::{Plan, PlanError, Target, plan};
use crate::restore::walk::{names, walk};
use crate::restore::{Keys, RestoreError};
use crate::store::{Store, StoreError};
use crate::timeline::Timeline;

/// How often it is begun anew because an object was merged into another meanwhile, or a listing missed both.
const TRIES: u32 = 5;

/// Before it is begun anew.
const PAUSE: Duration = Duration::from_millis(500);

/// How closely is looked.
#[derive(Clone)]
pub enum Depth {
    /// A database is built and checked.
    Full(Keys),
    /// Every object on the way is read.
    Quick(Keys),
    /// Names and sizes alone.
    Names,
}

impl Depth {
    fn word(&self) -> &'static str {
        match self {
            Self::Full(_) => "full",
            Self::Quick(_) => "quick",
            Self::Names => "names",
        }
    }
}

/// Whose fault it seems to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// Something is damaged or missing.
    Damage,
    /// Something was forged, swapped, or is for another key.
    Tampering,
}

/// What is wrong, and what to do.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Whose fault it seems to be.
    pub blame: Blame,
    /// One sentence that names the object.
    pub told: String,
    /// A merge may have caused it.
    may_pass: bool,
}

/// What a drill built.
#[derive(Debug, Clone, Copy)]
pub struct Built {
    /// Rows; `None` for a database that is not kine's.
    pub rows: Option<u64>,
    /// Bytes.
    pub bytes: u64,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Finding {
    /// How closely was looked: `full`, `quick` or `names`.
    pub depth: &'static str,
    /// The history.
    pub timeline: Timeline,
    /// The point that was to be restored, or the one that could be.
    pub point: RestorePoint,
    /// The newest point of the timeline.
    pub newest: RestorePoint,
    /// Objects on the way, with the archive of files.
    pub objects: usize,
    /// Their bytes in the bucket, without the archive's.
    pub bytes: u64,
    /// The archive of files beside the database.
    pub files: Option<String>,
    /// What was built, in a full drill.
    pub built: Option<Built>,
    /// How long it took.
    pub took: Duration,
    /// What is wrong; `None` if nothing is.
    pub problem: Option<Problem>,
}

/// Why it could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The bucket failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is nothing to verify.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// It failed for another reason than the backup.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// Verifies that `target` can be restored. `place` names bucket and prefix, for the error.
pub async fn verify<S: Store + Clone>(
    store: &S,
    prefix: &Prefix,
    place: &str,
    target: &Target,
    depth: &Depth,
) -> Result<Finding, VerifyError> {
    let (began, mut tries) = (Instant::now(), 1);
    loop {
        let catalogue = Catalogue::new(prefix, &store.list(&prefix.folder(), None).await?);
        let plan = plan(&catalogue, target, None, place)?;
        let progress = Progress::bytes("verifying", plan.bytes());
        let looked = look(store, &plan, depth, &progress).await;
        progress.finish();
        let finding = looked?;
        if tries < TRIES && finding.problem.as_ref().is_some_and(|problem| problem.may_pass) {
            tries += 1;
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        return Ok(Finding { took: began.elapsed(), ..finding });
    }
}

async fn look<S: Store + Clone>(
    store: &S,
    plan: &Plan,
    depth: &Depth,
    progress: &Progress,
) -> Result<Finding, RestoreError> {
    let mut finding = Finding {
        depth: depth.word(),
        timeline: plan.timeline,
        point: plan.point,
        newest: plan.newest(),
        objects: 1 + plan.segments.len(),
        bytes: plan.bytes(),
        files: None,
        built: None,
        took: Duration::ZERO,
        problem: None,
    };
    let looked = match depth {
        Depth::Full(keys) => drill(store, plan, keys, progress).await.map(|drilled| finding.drilled(drilled)),
        Depth::Quick(keys) => walk(store, plan, keys, progress).await.map(|files| finding.files = files),
        Depth::Names => names(plan).map_err(RestoreError::from),
    };
    if let Err(error) = looked {
        let what_next = match depth {
            Depth::Full(_) => "nothing can be restored from here; `vcluster-backup list` shows older points",
            _ => "`vcluster-backup verify` without --quick tells what can still be restored",
        };
        finding.problem = Some(Problem::of(error, plan, what_next)?);
    }
    finding.objects += usize::from(finding.files.is_some());
    Ok(finding)
}

impl Finding {
    fn drilled(&mut self, drilled: Drilled) {
        let Drilled { assembled, rows, bytes, files } = drilled;
        self.point = assembled.point;
        self.built = Some(Built { rows, bytes });
        self.files = files;
        let damage = assembled.damage.as_ref();
        let blame = damage.and_then(blame_of).unwrap_or(Blame::Damage);
        let may_pass = damage.is_some_and(may_pass);
        let told = match (assembled.missing, damage) {
            (Some(missing), _) => format!(
                "{missing}; `vcluster-backup restore --on-damage last-good` goes as far as {}, and `vcluster-backup \
                 snapshot` makes what the database holds now restorable again",
                self.point
            ),
            (None, Some(damage)) => format!(
                "{}; another way to the same point was found, and nothing is missing: keep the object for whoever \
                 finds out what became of it, and take a snapshot (`vcluster-backup snapshot`)",
                cause::chain(damage)
            ),
            (None, None) => return,
        };
        self.problem = Some(Problem { blame, told, may_pass });
    }

    /// Whether nothing is wrong.
    pub fn passed(&self) -> bool {
        self.problem.is_none()
    }

    /// What was done and found, in one sentence.
    pub fn sentence(&self, now: Moment) -> String {
        if let Some(problem) = &self.problem {
            return problem.told.clone();
        }
        let (point, objects) = (self.point, self.objects);
        let done = match self.built {
            Some(Built { rows: Some(rows), bytes }) => {
                format!(
                    "{point} was restored and checked, {rows} rows in {bytes} bytes from {objects} objects"
                )
            }
            Some(Built { rows: None, bytes }) => {
                format!("{point} was restored and checked, {bytes} bytes from {objects} objects")
            }
            None if self.depth == "names" => format!(
                "{objects} names lead to {point} without a gap, which is all that can be told without an identity"
            ),
            None => format!("{objects} objects that lead to {point} are whole and go on from one another"),
        };
        let age = self.newest.captured.until(now).as_secs();
        format!("{done}, in {:.1} s; the newest point is {age} s old", self.took.as_secs_f64())
    }
}

impl Problem {
    /// Sorts what a restore failed of: it is the backup's fault, or else the error is passed on.
    fn of(error: RestoreError, plan: &Plan, what_next: &str) -> Result<Self, RestoreError> {
        let (blame, may_pass) = match &error {
            RestoreError::Assembly(AssemblyError::Object { key, source: OpenError::WrongIdentity })
                if *key == plan.snapshot.1.key =>
            {
                // Nothing was opened yet: it is the identity that is wrong.
                (None, false)
            }
            RestoreError::Assembly(assembly) => (blame_of(assembly), may_pass(assembly)),
            RestoreError::Beside(BesideError::Object { source, .. }) => (blame_of_object(source), false),
            RestoreError::Beside(BesideError::Store(StoreError::NotFound(_))) => (Some(Blame::Damage), true),
            _ => (None, false),
        };
        let Some(blame) = blame else { return Err(error) };
        Ok(Self { blame, told: format!("{}; {what_next}", cause::chain(&error)), may_pass })
    }
}

fn may_pass(error: &AssemblyError) -> bool {
    matches!(error, AssemblyError::Store(StoreError::NotFound(_)) | AssemblyError::Gap { .. })
}

fn blame_of(error: &AssemblyError) -> Option<Blame> {
    match error {
        AssemblyError::Object { source, .. } => blame_of_object(source),
        AssemblyError::Unlinked { .. } | AssemblyError::Implausible { .. } => Some(Blame::Tampering),
        AssemblyError::Gap { .. }
        | AssemblyError::Unsound { .. }
        | AssemblyError::Store(StoreError::NotFound(_)) => Some(Blame::Damage),
        AssemblyError::Sqlite { source, .. } => {
            use rusqlite::ErrorCode::{ConstraintViolation, DatabaseCorrupt, NotADatabase};
            let code = source.sqlite_error_code();
            matches!(code, Some(ConstraintViolation | DatabaseCorrupt | NotADatabase))
                .then_some(Blame::Damage)
        }
        _ => None,
    }
}

fn blame_of_object(error: &OpenError) -> Option<Blame> {
    match error {
        OpenError::Damaged(_) => Some(Blame::Damage),
        OpenError::Swapped { .. } | OpenError::NotSigned { .. } | OpenError::WrongIdentity => {
            Some(Blame::Tampering)
        }
        OpenError::Io(_) | OpenError::Header(_) => None,
    }
}
