//! `restore`: a database back at a point, beside or over what is there.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Place, bring_back, no_identity, print, print_json};
use crate::args;
use crate::catalogue::{Catalogue, Stored};
use crate::clock::Clock;
use crate::database::with_suffix;
use crate::error::{Exit, VerbError};
use crate::files::Included;
use crate::restore::beside::Beside;
use crate::restore::plan::{Plan, PlanError, Target, plan};
use crate::restore::{Order, seed};
use crate::revision::Revision;
use crate::settings::Settings;

pub(super) async fn run(settings: &Settings, flags: args::Restore) -> anyhow::Result<Exit> {
    if flags.output.exists() && !flags.dry_run {
        if flags.if_not_exists {
            eprintln!("{} exists: left as it is", flags.output.display());
            return Ok(Exit::Done);
        }
        if !flags.force {
            return Err(VerbError::TargetExists(flags.output.display().to_string()).into());
        }
    }
    let place = Place::open(settings, None).await?;
    let catalogue = place.catalogue().await?;
    if let Some(expected) = flags.expect_at_least {
        expect_at_least(&catalogue, expected)?;
    }
    let target = flags.point.target();
    let planned = plan(&catalogue, &target, flags.timeline, &place.name);
    match planned {
        Err(PlanError::NoBackup(_)) if flags.timeline.is_none() && !catalogue.seed_objects.is_empty() => {
            restore_seed(settings, &place, &catalogue, &target, &flags).await
        }
        Err(PlanError::NoBackup(place)) if flags.if_backup_exists => {
            eprintln!("there is no backup in {place}: nothing was restored");
            Ok(Exit::Done)
        }
        Err(error) => Err(error.into()),
        Ok(plan) if flags.dry_run => print_plan(&plan, flags.json),
        Ok(_) => {
            let keys = place.keys(settings).await?.ok_or_else(no_identity)?;
            let output = &flags.output;
            let order = Order {
                target: output.clone(),
                on_damage: flags.on_damage,
                beside: Some(beside(settings, output)?),
                clock: Clock::SYSTEM,
                owner: None,
                above: Revision::ZERO,
            };
            let restored = bring_back(&place, &target, flags.timeline, keys, &order).await?;
            let (point, kept) = (restored.point.to_string(), restored.kept.as_deref());
            report(output, &point, restored.goes_on_at, kept, flags.json)?;
            if let Some(told) = restored.beside {
                eprintln!("{told}");
            }
            Ok(match restored.missing {
                Some(missing) => {
                    eprintln!("{missing}");
                    Exit::Partial
                }
                None => Exit::Done,
            })
        }
    }
}

/// The files beside the database: where they were if they are named with --include, else in a folder beside the output.
fn beside(settings: &Settings, output: &Path) -> anyhow::Result<Beside> {
    if !settings.include().is_empty() {
        let included = Included::new(settings.include().iter().cloned(), Some(output))?;
        return Ok(Beside { included, root: PathBuf::from("/"), secrets: None });
    }
    let included = Included::new([PathBuf::from("/")], None)?;
    Ok(Beside { included, root: with_suffix(output, ".files"), secrets: None })
}

async fn restore_seed(
    settings: &Settings,
    place: &Place,
    catalogue: &Catalogue,
    target: &Target,
    flags: &args::Restore,
) -> anyhow::Result<Exit> {
    let found = match target {
        Target::Latest => catalogue.seed_objects.last(),
        Target::At(moment) => {
            catalogue.seed_objects.iter().rfind(|(_, modified)| modified.is_some_and(|at| at <= *moment))
        }
        Target::Revision(_) | Target::Pin(_) => None,
    };
    let Some((stored, modified)) = found else {
        return Err(VerbError::Nothing(format!(
            "{target} cannot be restored: {} holds objects of the seed format alone, which know --latest and --at",
            place.name
        ))
        .into());
    };
    let point = modified.map_or_else(|| stored.key.clone(), |at| format!("{} ({at})", stored.key));
    if flags.dry_run {
        return print_seed_plan(stored, flags.json);
    }
    let passphrase = settings
        .passphrase()
        .ok_or_else(|| VerbError::Usage(format!("{} needs the passphrase in ENC_KEY", stored.key)))?;
    let (goes_on_at, kept) =
        seed::carry_out(&place.store, stored, passphrase.clone(), &flags.output, Clock::SYSTEM).await?;
    report(&flags.output, &point, goes_on_at, kept.as_deref(), flags.json)
}

fn expect_at_least(catalogue: &Catalogue, expected: Revision) -> Result<(), VerbError> {
    let newest = catalogue.highest_revision();
    if newest >= expected {
        return Ok(());
    }
    Err(VerbError::RolledBack { newest: newest.to_string(), expected: expected.to_string() })
}

fn print_plan(plan: &Plan, as_json: bool) -> anyhow::Result<Exit> {
    let objects: Vec<&Stored> = std::iter::once(&plan.snapshot.1)
        .chain(plan.segments.iter().map(|segment| &segment.stored))
        .collect();
    if as_json {
        let objects: Vec<_> = objects.iter().map(|o| json!({"key": o.key, "bytes": o.size})).collect();
        print_json(&json!({
            "timeline": plan.timeline.to_string(), "point": plan.point, "objects": objects, "bytes": plan.bytes(),
        }))?;
    } else {
        print(&format!("timeline {}, {}, from {} bytes:", plan.timeline, plan.point, plan.bytes()))?;
        for object in objects {
            print(&format!("  {} ({} bytes)", object.key, object.size))?;
        }
        if let Some(gap) = &plan.gap {
            eprintln!("what lies between it and {} is missing", gap.stored.key);
        }
    }
    Ok(Exit::Done)
}

fn print_seed_plan(stored: &Stored, as_json: bool) -> anyhow::Result<Exit> {
    if as_json {
        let object = json!({"key": stored.key, "bytes": stored.size});
        print_json(&json!({"objects": [object], "bytes": stored.size}))?;
    } else {
        print(&format!("{} ({} bytes, seed format)", stored.key, stored.size))?;
    }
    Ok(Exit::Done)
}

fn report(
    output: &Path,
    point: &str,
    goes_on_at: Option<Revision>,
    kept: Option<&Path>,
    as_json: bool,
) -> anyhow::Result<Exit> {
    if as_json {
        print_json(&json!({
            "database": output, "restored": point, "goesOnAt": goes_on_at, "before": kept,
        }))?;
        return Ok(Exit::Done);
    }
    print(&format!("restored {} at {point}", output.display()))?;
    if let Some(revision) = goes_on_at {
        let line = format!(
            "the control plane goes on above revision {revision}, so that no watch sees time run backwards"
        );
        print(&line)?;
    }
    if let Some(kept) = kept {
        print(&format!("what was there is kept as {}", kept.display()))?;
    }
    Ok(Exit::Done)
}
