//! What runs **beside** kine while it is measured.

use anyhow::Result;
use vcluster_backup_tests::sidecar::Sidecar;
use vcluster_backup_tests::site::Site;

use crate::litestream::Litestream;

/// One of the three that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    /// Nothing: kine alone.
    Alone,
    /// The agent.
    Agent,
    /// litestream.
    Litestream,
}

/// A contender that runs.
pub enum Beside {
    /// Nothing does.
    Nothing,
    /// The agent.
    Agent(Sidecar),
    /// litestream.
    Litestream(Litestream),
}

impl Beside {
    /// Starts the contender and waits until it has shipped what was there; `settled`: and is in its steady state.
    pub async fn start(contender: Contender, site: &Site, settled: bool) -> Result<Self> {
        Ok(match contender {
            Contender::Alone => Self::Nothing,
            Contender::Agent => Self::Agent(site.sidecar(&[]).await?),
            Contender::Litestream => Self::Litestream(Litestream::start(site, settled).await?),
        })
    }

    /// The most memory that it ever had, bytes; 0 if nothing runs.
    pub fn peak_memory(&self) -> Result<u64> {
        Ok(match self {
            Self::Nothing => 0,
            Self::Agent(sidecar) => sidecar.process().memory()?.1,
            Self::Litestream(litestream) => litestream.process().memory()?.1,
        })
    }

    /// SIGTERM, and waits for its end. kine has stopped before.
    pub async fn stop(self) -> Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Agent(sidecar) => {
                sidecar.terminate()?;
                sidecar.ended().await
            }
            Self::Litestream(litestream) => litestream.stop().await,
        }
    }
}
