//! Pinned adapters that are not held in memory: shown as a metric and in the details of readiness.

use std::{
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use prometheus::{IntGaugeVec, Opts, Registry};

use super::instruments::{Instrument, registered};

/// Why a pinned adapter is not held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinFault {
    /// Its files can't be had or are not sound.
    Error,
    /// More is pinned than the memory for adapters takes, or those in use fill it.
    Capacity,
}

impl PinFault {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Error, Self::Capacity];

    /// The word in metrics and details.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Capacity => "capacity",
        }
    }
}

/// Since when some are missing, by [`PinFault`].
type Since = [Option<SystemTime>; PinFault::ALL.len()];

/// How many pinned adapters are not held in memory now. Names are the tenants' and stand in the log only.
#[derive(Debug)]
pub struct MissingPins {
    family: IntGaugeVec,
    since: Mutex<Since>,
}

impl MissingPins {
    /// So many are missing for this reason now.
    pub fn set(&self, fault: PinFault, count: usize) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = &mut since[fault as usize];
        *slot = (count > 0).then(|| slot.unwrap_or_else(SystemTime::now));
        self.gauge(fault).set(count as i64);
    }

    /// Why some are missing, and since when there has been one.
    pub fn standing(&self) -> Vec<(PinFault, SystemTime)> {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = |fault| since[fault as usize].map(|since| (fault, since));
        PinFault::ALL.into_iter().filter_map(standing).collect()
    }

    fn gauge(&self, fault: PinFault) -> prometheus::IntGauge {
        self.family.with_label_values(&[fault.as_str()])
    }
}

impl Instrument for MissingPins {
    const KIND: &'static str = "gauge";
    const LABELS: &'static [&'static str] = &["reason"];

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        let family = registered(registry, IntGaugeVec::new(Opts::new(name, help), Self::LABELS));
        let pins = Self { family, since: Mutex::default() };
        // All of them from the start, so that an alert sees 0 become 1.
        PinFault::ALL.into_iter().for_each(|fault| pins.set(fault, 0));
        pins
    }
}
