//! A **point** in a backup's history, as the command line asks for it.

use clap::Args;
use clap::builder::FalseyValueParser;

use crate::clock::Moment;
use crate::pin::PinName;
use crate::restore::plan::Target;
use crate::revision::Revision;

/// The flags, of which one is given at most.
#[derive(Args, Default)]
#[group(multiple = false)]
pub struct Point {
    /// The newest point (the default)
    #[arg(long, env = "VCB_LATEST", value_parser = FalseyValueParser::new())]
    pub latest: bool,
    /// The newest point at or before this time
    #[arg(long, env = "VCB_AT", value_name = "RFC3339")]
    pub at: Option<Moment>,
    /// This Kubernetes revision
    #[arg(long, env = "VCB_REVISION", value_name = "N")]
    pub revision: Option<Revision>,
    /// The point pinned under this name
    #[arg(long, env = "VCB_PIN", value_name = "NAME")]
    pub pin: Option<PinName>,
}

impl Point {
    /// The point that is meant.
    pub fn target(&self) -> Target {
        match (self.at, self.revision, &self.pin) {
            (Some(moment), _, _) => Target::At(moment),
            (_, Some(revision), _) => Target::Revision(revision),
            (_, _, Some(pin)) => Target::Pin(pin.clone()),
            _ => Target::Latest,
        }
    }
}
