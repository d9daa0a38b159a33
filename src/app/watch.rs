//! Files that may change while the server runs: read anew at SIGHUP, and when their bytes have changed.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};
use tokio::time::{MissedTickBehavior, interval};

use super::signal::Hangups;
use crate::telemetry::Metrics;

/// How often the files are looked at. Their bytes are compared: links that are exchanged (as Kubernetes does with
/// secrets) and files written within one tick of the clock are seen too.
pub(super) const PERIOD: Duration = Duration::from_secs(5);

/// Files that are one thing.
pub struct Watched {
    /// Its name in logs and metrics.
    pub name: &'static str,
    /// The files.
    pub files: Vec<PathBuf>,
    /// Reads them anew, or says why what they said before stays.
    pub reload: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

/// What the files' bytes are; `None` where one can't be read.
type Print = Vec<Option<[u8; 32]>>;

impl Watched {
    fn print(&self) -> Print {
        let digest = |path: &PathBuf| fs::read(path).ok().map(|bytes| Sha256::digest(bytes).into());
        self.files.iter().map(digest).collect()
    }

    fn read_anew(&self, metrics: &Metrics) {
        let outcome = (self.reload)();
        metrics.reloads.count(self.name, outcome.is_ok());
        match outcome {
            Ok(()) => tracing::info!(what = self.name, "read anew"),
            Err(error) => {
                tracing::error!(what = self.name, error, "not read anew: what was known before stays")
            }
        }
    }
}

/// Watches until it is dropped, with a look every `period`.
pub(super) async fn watch(
    watched: Vec<Watched>,
    metrics: Arc<Metrics>,
    mut hangups: Hangups,
    period: Duration,
) {
    let mut prints: Vec<Print> = watched.iter().map(Watched::print).collect();
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let asked = tokio::select! {
            () = hangups.next() => true,
            _ = ticks.tick() => false,
        };
        for (watched, known) in watched.iter().zip(&mut prints) {
            // The print first: what changes after it is seen at the next look.
            let print = watched.print();
            if asked || print != *known {
                *known = print;
                watched.read_anew(&metrics);
            }
        }
    }
}
