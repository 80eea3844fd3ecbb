//! The **origin** of a restore: the agent's own backup, or the source that the request names, with its own credentials,
//! signers and owner.

use std::sync::Arc;

use super::Place;
use crate::catalogue::Catalogue;
use crate::continuity;
use crate::header::Owner;
use crate::restore::Keys;
use crate::restore::source::Source;
use crate::revision::Revision;
use crate::settings::Settings;
use crate::signing::Signers;
use crate::store::{S3Store, StoreError};

/// Where a restore comes from.
pub(super) struct Origin {
    /// The place; of a source it counts what is its owner's.
    pub(super) place: Place,
    /// Whose signature its objects must bear; `None`: as the settings say.
    signers: Option<Signers>,
    /// What the restored revision must rise above beside all that counts there.
    pub(super) above: Revision,
}

impl Origin {
    /// Opens it. Its credentials must be there, and both buckets must answer.
    pub(super) async fn open(
        settings: &Settings,
        own: &Place,
        source: Option<&Source>,
    ) -> anyhow::Result<Self> {
        let Some(source) = source else {
            return Ok(Self { place: own.clone(), signers: None, above: Revision::ZERO });
        };
        let store = source.store(settings.store()?);
        let (bucket, prefix) = (&source.bucket, source.prefix());
        let whose = source.owner.as_ref().map(|owner| format!(" of {owner}")).unwrap_or_default();
        let folder = prefix.folder();
        let name = format!("{}, the source that restore.from names{whose}", super::named(bucket, &folder));
        let store = Arc::new(S3Store::open(store, None).await?);
        let mut place = Place { store, prefix, name, metrics: None, owner: None };
        // Clients may have seen what either bucket holds, whosever it is.
        let (there, here) = (place.catalogue().await?, own.catalogue().await?);
        place.owner.clone_from(&source.owner);
        let above = there.highest_revision().max(here.highest_revision());
        Ok(Self { place, signers: Some(source.signer.clone()), above })
    }

    /// What opens the objects there; `None` if the settings name no key.
    pub(super) async fn keys(&self, settings: &Settings) -> anyhow::Result<Option<Keys>> {
        let keys = self.place.keys(settings).await?;
        Ok(keys.map(|keys| match &self.signers {
            Some(signers) => Keys { signers: signers.clone(), ..keys },
            None => keys,
        }))
    }
}

/// Leaves out the timelines that say that they are someone else's. What says nothing is judged by its signed header.
pub(super) async fn leave_out_others(
    place: &Place,
    owner: &Owner,
    catalogue: &mut Catalogue,
) -> Result<(), StoreError> {
    let mut others = Vec::new();
    for (timeline, history) in &catalogue.timelines {
        let tip = continuity::tip(&place.store, &place.prefix, *timeline, history).await?;
        if tip.and_then(|tip| tip.owner).is_some_and(|other| !owner.is_same(&other)) {
            others.push(*timeline);
        }
    }
    catalogue.timelines.retain(|timeline, _| !others.contains(timeline));
    Ok(())
}
