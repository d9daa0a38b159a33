//! `dept train`: from examples to an adapter's folder.

mod args;
mod bar;
mod judge;
mod prepare;

use std::time::Instant;

pub use args::Args;

use self::{bar::Bar, judge::EngineJudge, prepare::Prepared};
use crate::{
    api::{Readiness, State},
    app::Resident,
    config::{EngineConfig, LogFormat, Places},
    telemetry::start_logging,
    training::{Judge, Outcome, Run},
};

/// Trains, and says how it went.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    start_logging(LogFormat::Text, "warn")?;
    let mut config = EngineConfig::new(args.engine.clone(), &Places::from_environment())?;
    let began = Instant::now();
    let prepared = prepare::prepare(args, &config)?;
    config.max_model_len = config.max_model_len.max(prepared.rows());
    prepared.announce(args);
    let run = Run::open(
        (&prepared.backbone, &prepared.examples),
        (prepared.output.clone(), prepared.card.clone()),
        prepared.parameters.clone(),
        prepared.settings.clone(),
        args.restart,
    )?;
    if run.done() > 0 {
        eprintln!("going on after step {}", run.done());
    }
    let mut bar = Bar::new(prepared.settings.steps, run.done());
    let outcome = match &prepared.evaluation {
        None => run.finish(None, &mut bar),
        Some(_) => with_engine(config, &prepared, |judge| run.finish(Some(judge), &mut bar))?,
    };
    bar.close();
    report(args, &outcome?, began);
    Ok(())
}

/// Calls `work` with a judge whose engine serves the model as a server would.
fn with_engine<T>(
    mut config: EngineConfig,
    prepared: &Prepared,
    work: impl FnOnce(&mut dyn Judge) -> T,
) -> anyhow::Result<T> {
    // The judge brings its own adapters.
    config.adapters = None;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let resident =
        runtime.block_on(Resident::start(config, std::sync::Arc::default(), Readiness::default()))?;
    resident.readiness().set(State::Ready);
    let done = work(&mut EngineJudge { runtime: &runtime, resident: &resident, prepared });
    resident.drain()(Instant::now());
    runtime.block_on(resident.ended());
    Ok(done)
}

fn report(args: &Args, outcome: &Outcome, began: Instant) {
    let best = match outcome.best {
        Some((step, value)) => format!(", best {value:.4} after step {step}"),
        None => String::new(),
    };
    let early = if outcome.stopped_early { ", stopped as nothing got better" } else { "" };
    println!(
        "{}: {} steps{best}{early}, {:.0} s of training, {:.0} s in all",
        args.out.display(),
        outcome.steps,
        outcome.seconds,
        began.elapsed().as_secs_f64()
    );
}
