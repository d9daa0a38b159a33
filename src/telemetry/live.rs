//! What is true at this moment, and written down only when somebody asks: metrics that no event could keep up to date.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use prometheus::{
    Gauge, GaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::instruments::{Instrument, registered};
use crate::domain::AdapterName;

/// Adapters that [`LoraRequests`] names at once.
pub const NAMED: usize = 64;

/// How long the engine has been at one step. Written twice a step without a lock.
#[derive(Debug, Clone)]
pub struct StepAge {
    gauge: Gauge,
    clock: Arc<StepClock>,
}

#[derive(Debug)]
struct StepClock {
    zero: Instant,
    /// Nanoseconds from `zero` to the step's beginning, plus one; 0 between steps.
    began: AtomicU64,
}

impl StepAge {
    /// A step begins.
    pub fn began(&self, now: Instant) {
        let since = now.saturating_duration_since(self.clock.zero).as_nanos();
        self.clock.began.store(u64::try_from(since).unwrap_or(u64::MAX - 1) + 1, Ordering::Release);
    }

    /// It has ended.
    pub fn ended(&self) {
        self.clock.began.store(0, Ordering::Release);
    }

    /// How long the present step has been running at `now`; nothing between two steps.
    pub fn at(&self, now: Instant) -> Duration {
        let Some(began) = self.clock.began.load(Ordering::Acquire).checked_sub(1) else {
            return Duration::ZERO;
        };
        now.saturating_duration_since(self.clock.zero).saturating_sub(Duration::from_nanos(began))
    }
}

impl Collector for StepAge {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.set(self.at(Instant::now()).as_secs_f64());
        self.gauge.collect()
    }
}

impl Instrument for StepAge {
    const KIND: &'static str = "gauge";

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        let clock = Arc::new(StepClock { zero: Instant::now(), began: AtomicU64::new(0) });
        registered(registry, Gauge::new(name, help).map(|gauge| Self { gauge, clock }))
    }
}

/// The adapters of live sequences, as the model-server protocol of the Gateway API Inference Extension wants them: one
/// series whose labels are the lists and whose value is the time.
#[derive(Debug, Clone)]
pub struct LoraRequests {
    family: GaugeVec,
    live: Arc<Live>,
}

#[derive(Debug, Default)]
struct Live {
    /// Sequences in one step, each of which may have an adapter of its own.
    most: AtomicUsize,
    /// Waiting and running sequences by adapter; none at zero and zero.
    adapters: Mutex<BTreeMap<AdapterName, (u32, u32)>>,
}

impl LoraRequests {
    /// Says how many adapters can be in one step.
    pub fn set_most(&self, most: usize) {
        self.live.most.store(most, Ordering::Relaxed);
    }

    /// A sequence with `adapter` waits.
    pub fn came(&self, adapter: &AdapterName) {
        self.change(adapter, |waiting, running| (waiting + 1, running));
    }

    /// A sequence with `adapter` waits no more and runs.
    pub fn started(&self, adapter: &AdapterName) {
        self.change(adapter, |waiting, running| (waiting.saturating_sub(1), running + 1));
    }

    /// A sequence with `adapter` is gone, after or before it ran.
    pub fn left(&self, adapter: &AdapterName, started: bool) {
        self.change(adapter, |waiting, running| {
            if started { (waiting, running.saturating_sub(1)) } else { (waiting.saturating_sub(1), running) }
        });
    }

    fn change(&self, adapter: &AdapterName, next: impl FnOnce(u32, u32) -> (u32, u32)) {
        let mut adapters = self.live.adapters.lock().unwrap_or_else(PoisonError::into_inner);
        let (waiting, running) = adapters.get(adapter).copied().unwrap_or_default();
        match next(waiting, running) {
            (0, 0) => drop(adapters.remove(adapter)),
            after => drop(adapters.insert(adapter.clone(), after)),
        }
    }

    /// Writes the one series that is true now.
    fn write(&self) {
        let adapters = self.live.adapters.lock().unwrap_or_else(PoisonError::into_inner);
        let list = |of: fn(&(u32, u32)) -> u32| {
            let named = adapters.iter().filter(|(_, held)| of(held) > 0).map(|(name, _)| name.as_str());
            named.take(NAMED).collect::<Vec<_>>().join(",")
        };
        let most = self.live.most.load(Ordering::Relaxed).to_string();
        let labels = [most, list(|&(_, running)| running), list(|&(waiting, _)| waiting)];
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.family.reset();
        self.family.with_label_values(&labels).set(now.as_secs_f64());
    }
}

impl Collector for LoraRequests {
    fn desc(&self) -> Vec<&Desc> {
        self.family.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.write();
        self.family.collect()
    }
}

impl Instrument for LoraRequests {
    const KIND: &'static str = "gauge";
    const LABELS: &'static [&'static str] = &["max_lora", "running_lora_adapters", "waiting_lora_adapters"];

    fn register(registry: &Registry, name: &str, help: &str) -> Self {
        let family = GaugeVec::new(Opts::new(name, help), Self::LABELS);
        registered(registry, family.map(|family| Self { family, live: Arc::default() }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{super::Metrics, NAMED};

    #[test]
    fn a_step_has_an_age_and_the_time_between_two_has_none() {
        let age = Metrics::default().step_age;
        let now = Instant::now();
        assert_eq!(age.at(now), Duration::ZERO);
        age.began(now);
        assert_eq!(age.at(now + Duration::from_secs(3)), Duration::from_secs(3));
        age.ended();
        assert_eq!(age.at(now + Duration::from_secs(4)), Duration::ZERO);
    }

    #[test]
    fn one_series_names_the_adapters_that_run_and_wait() {
        let metrics = Metrics::default();
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        metrics.lora_requests.set_most(8);
        metrics.lora_requests.came(&a);
        metrics.lora_requests.came(&a);
        metrics.lora_requests.came(&b);
        metrics.lora_requests.started(&a);
        let series = |text: &str| -> Vec<String> {
            let of_it = text.lines().filter(|line| line.starts_with("dept_lora_requests_info{"));
            of_it.map(|line| line.split_once(' ').unwrap().0.to_owned()).collect()
        };
        assert_eq!(
            series(&metrics.render()),
            [
                r#"dept_lora_requests_info{max_lora="8",running_lora_adapters="a",waiting_lora_adapters="a,b"}"#
            ]
        );
        metrics.lora_requests.left(&a, true);
        metrics.lora_requests.left(&a, false);
        metrics.lora_requests.left(&b, false);
        assert_eq!(
            series(&metrics.render()),
            [r#"dept_lora_requests_info{max_lora="8",running_lora_adapters="",waiting_lora_adapters=""}"#]
        );
    }

    #[test]
    fn so_many_adapters_are_named_and_no_more() {
        let metrics = Metrics::default();
        for i in 0..NAMED + 9 {
            metrics.lora_requests.came(&format!("a{i}").parse().unwrap());
        }
        let text = metrics.render();
        let line = text.lines().find(|line| line.starts_with("dept_lora_requests_info{")).unwrap();
        let names = line.split_once(r#"waiting_lora_adapters=""#).unwrap().1.split_once('"').unwrap().0;
        assert_eq!(names.split(',').count(), NAMED);
    }
}
