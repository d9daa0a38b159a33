use std::{fs, io::IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};

use crate::training::{Observer, Progress, Verdict};

/// Steps between two lines where there is no terminal.
const LINES_EVERY: u64 = 50;

/// Shows a run: a bar on a terminal, else a line now and then.
pub(super) struct Bar {
    bar: ProgressBar,
    terminal: bool,
    /// Smoothed, so that the eye can follow.
    loss: Option<f64>,
    rate: Option<f64>,
    metric: String,
}

impl Bar {
    pub fn new(steps: u64, done: u64) -> Self {
        let bar = ProgressBar::new(steps).with_position(done);
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len}  {msg}  {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        // The time of earlier sittings says nothing about this one.
        bar.reset_eta();
        let terminal = std::io::stderr().is_terminal();
        Self { bar, terminal, loss: None, rate: None, metric: String::new() }
    }

    pub fn close(self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Bar {
    fn stepped(&mut self, progress: &Progress) {
        let smooth = |old: Option<f64>, new: f64| Some(old.map_or(new, |old| 0.9 * old + 0.1 * new));
        self.loss = smooth(self.loss, progress.loss);
        self.rate = smooth(self.rate, progress.tokens as f64 / progress.seconds.max(1e-9));
        let message = format!(
            "loss {:.4}{}  {:.0} tokens/s  peak {}",
            self.loss.unwrap_or_default(),
            self.metric,
            self.rate.unwrap_or_default(),
            peak_memory()
        );
        if !self.terminal && (progress.step.is_multiple_of(LINES_EVERY) || progress.step == progress.steps) {
            eprintln!("step {}/{}  {message}", progress.step, progress.steps);
        }
        self.bar.set_message(message);
        self.bar.set_position(progress.step);
    }

    fn evaluated(&mut self, step: u64, verdict: &Verdict, best: bool) {
        self.metric = format!("  {} {:.4}", verdict.measurement.metric, verdict.value);
        let kept = if best { "best so far, kept" } else { "not better" };
        let line = format!("step {step}:{}  n {}  {kept}", self.metric, verdict.measurement.n);
        if self.terminal { self.bar.println(line) } else { eprintln!("{line}") }
    }
}

/// The most memory that this process has held, as the kernel counts it.
fn peak_memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or("unknown".to_owned(), |kib| format!("{} MiB", kib / 1024))
}
