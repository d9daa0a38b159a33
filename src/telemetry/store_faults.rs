//! Whether the adapter store does its work: a state that events change, shown as a metric and in the details of readiness.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use prometheus::{IntGaugeVec, Opts, Registry};

use super::instruments::{Instrument, registered};

/// What a store is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreWork {
    /// Which names there are.
    List,
    /// What a name stands for, an adapter's files.
    Read,
    /// A change.
    Write,
}

impl StoreWork {
    const ALL: [Self; 3] = [Self::List, Self::Read, Self::Write];

    /// The word in metrics and details.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Why it is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// It does not answer, or not as a store does.
    Unreachable,
    /// It refuses this server: a credential is wrong or over, a disk is read-only.
    Denied,
    /// It has no room.
    Full,
}

impl StoreFault {
    const ALL: [Self; 3] = [Self::Unreachable, Self::Denied, Self::Full];

    /// The word in metrics and details.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::Full => "full",
        }
    }
}

/// Work that is not done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The work.
    pub work: StoreWork,
    /// Why.
    pub fault: StoreFault,
    /// Since when.
    pub since: SystemTime,
}

/// Why each kind of work is not done, and since when.
type Now = [Option<(StoreFault, SystemTime)>; StoreWork::ALL.len()];

/// What the store fails at now. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct StoreFaults {
    family: IntGaugeVec,
    now: Arc<Mutex<Now>>,
}

impl StoreFaults {
    /// The store has failed at `work`. Returns whether that is news.
    pub fn fails(&self, work: StoreWork, fault: StoreFault) -> bool {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = &mut now[work as usize];
        let before = *slot;
        if before.is_some_and(|(known, _)| known == fault) {
            return false;
        }
        *slot = Some((fault, before.map_or_else(SystemTime::now, |(_, since)| since)));
        if let Some((known, _)) = before {
            self.show(work, known, 0);
        }
        self.show(work, fault, 1);
        true
    }

    /// The store has done `work`. Returns whether that is news.
    pub fn works(&self, work: StoreWork) -> bool {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((fault, _)) = now[work as usize].take() else { return false };
        self.show(work, fault, 0);
        true
    }

    /// Why `work` is not done now.
    pub fn of(&self, work: StoreWork) -> Option<StoreFault> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)[work as usize].map(|(fault, _)| fault)
    }

    /// All that is not done now.
    pub fn standing(&self) -> Vec<Standing> {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let standing =
            |work: StoreWork| now[work as usize].map(|(fault, since)| Standing { work, fault, since });
        StoreWork::ALL.into_iter().filter_map(standing).collect()
    }

    fn show(&self, work: StoreWork, fault: StoreFault, value: i64) {
        self.family.with_label_values(&[work.as_str(), fault.as_str()]).set(value);
    }
}

impl Instrument for StoreFaults {
    const KIND: &'static str = "gauge";
    const LABELS: &'static [&'static str] = &["operation", "reason"];

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        let family = registered(registry, IntGaugeVec::new(Opts::new(name, help), Self::LABELS));
        let faults = Self { family, now: Arc::default() };
        // All of them from the start, so that an alert sees 0 become 1.
        for (work, fault) in
            StoreWork::ALL.iter().flat_map(|work| StoreFault::ALL.map(|fault| (*work, fault)))
        {
            faults.show(work, fault, 0);
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Metrics, *};

    #[test]
    fn a_fault_stands_until_the_work_is_done() {
        let metrics = Metrics::default();
        let faults = &metrics.store_faults;
        let series = |work: &str, reason: &str| {
            format!(r#"dept_adapter_store_fault{{operation="{work}",reason="{reason}"}}"#)
        };
        assert!(metrics.render().contains(&(series("write", "full") + " 0")));
        assert!(faults.fails(StoreWork::Write, StoreFault::Full));
        assert!(!faults.fails(StoreWork::Write, StoreFault::Full), "that is known");
        let since = faults.standing()[0].since;
        assert!(faults.fails(StoreWork::Write, StoreFault::Denied), "another reason is news");
        let standing = Standing { work: StoreWork::Write, fault: StoreFault::Denied, since };
        assert_eq!(faults.standing(), [standing], "it has failed since then, whatever for");
        let text = metrics.render();
        assert!(text.contains(&(series("write", "full") + " 0")), "{text}");
        assert!(text.contains(&(series("write", "denied") + " 1")), "{text}");
        assert!(!faults.works(StoreWork::Read));
        assert!(faults.works(StoreWork::Write) && !faults.works(StoreWork::Write));
        assert!(metrics.render().contains(&(series("write", "denied") + " 0")));
        assert_eq!(faults.standing(), []);
    }
}
