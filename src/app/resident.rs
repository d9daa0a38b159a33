//! A model with its engine, its adapters and the use cases over them: a server without doors.

use std::{num::NonZeroU32, path::PathBuf, sync::Arc, thread::JoinHandle, time::Instant};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, Shared},
};

use super::{
    AppError,
    load::{LoadedModel, load_model},
};
use crate::{
    adapter::{BackboneShape, Registry, Task},
    api::{Readiness, Service, State},
    config::EngineConfig,
    domain::{ModelKind, ModelProfile, SamplingParams, Scoring, TenantId, TokenEvent},
    engine::{EngineHandle, Submission},
    telemetry::Metrics,
};

/// A model that answers.
pub struct Resident {
    /// The use cases.
    pub service: Arc<Service>,
    engine: EngineHandle,
    /// Ends when the engine's thread does; whether it ended in good order.
    ended: Shared<BoxFuture<'static, bool>>,
}

impl Resident {
    /// Loads the model and the adapters, starts the engine and runs one step. Not ready yet: that is for who opens the
    /// doors to say.
    ///
    /// # Errors
    /// When the model can't be loaded or does not answer, or the adapters' root can't be listed.
    pub async fn start(
        config: EngineConfig,
        metrics: Arc<Metrics>,
        readiness: Readiness,
    ) -> Result<Self, AppError> {
        let counted = Arc::clone(&metrics);
        let load = move || -> Result<_, AppError> {
            let model = load_model(&config)?;
            let registry = Arc::new(scan_adapters(config.adapters.as_ref(), &model.profile, &counted)?);
            Ok((start_engine(model, &config, counted)?, registry, config.queue_requests))
        };
        let ((engine, thread, tokenizer), registry, max_sequences) =
            tokio::task::spawn_blocking(load).await.map_err(std::io::Error::other)??;
        warm_up(&engine).await?;
        let engines = vec![engine.clone()];
        let service = Service { engines, registry, tokenizer, metrics, readiness, max_sequences };
        let joined = tokio::task::spawn_blocking(move || thread.join().is_ok());
        let ended = joined.map(|joined| joined.unwrap_or(false)).boxed().shared();
        Ok(Self { service: Arc::new(service), engine, ended })
    }

    /// Whether requests are served, which starts as no.
    pub fn readiness(&self) -> &Readiness {
        &self.service.readiness
    }

    /// The resident model.
    pub fn model(&self) -> &ModelProfile {
        self.engine.model()
    }

    /// What begins the drain: nothing new is taken, what runs may finish until the deadline.
    pub fn drain(&self) -> impl FnOnce(Instant) + Send + 'static {
        let (readiness, engine) = (self.readiness().clone(), self.engine.clone());
        move |deadline| {
            readiness.set(State::Draining);
            engine.drain(deadline);
        }
    }

    /// Resolves when the engine has ended, which a drain makes it do: whether in good order.
    pub fn ended(&self) -> impl Future<Output = bool> + Send + 'static {
        self.ended.clone()
    }
}

type Started = (EngineHandle, JoinHandle<()>, crate::tokenizer::Tokenizer);

fn start_engine(
    model: LoadedModel,
    config: &EngineConfig,
    metrics: Arc<Metrics>,
) -> Result<Started, AppError> {
    let tokenizer = model.tokenizer.clone();
    let (engine, thread) = model.start(config, metrics)?;
    Ok((engine, thread, tokenizer))
}

/// The adapters of the configured root. Unsound folders are logged and left out.
fn scan_adapters(
    root: Option<&PathBuf>,
    model: &ModelProfile,
    metrics: &Metrics,
) -> Result<Registry, AppError> {
    let shape = BackboneShape {
        hidden: model.hidden,
        task: match model.kind {
            ModelKind::Seq2Seq => Task::Seq2SeqLm,
            ModelKind::Causal => Task::CausalLm,
        },
        name: model.name.clone(),
        fingerprint: Some(model.fingerprint.clone()),
    };
    let Some(root) = root else { return Ok(Registry::new(shape)) };
    let (registry, failures) =
        Registry::scan(root, shape).map_err(|source| AppError::Adapters { path: root.clone(), source })?;
    for failure in &failures {
        tracing::warn!(folder = %failure.path.display(), error = %failure.error, "an adapter is left out");
    }
    metrics.adapter_loads.ok.inc_by(registry.len() as u64);
    metrics.adapter_loads.error.inc_by(failures.len() as u64);
    metrics.adapters.host.set(registry.len() as i64);
    metrics.adapters.store.set(registry.len() as i64);
    Ok(registry)
}

/// Runs one short sequence, so that the first request finds memory touched and the model known to work.
async fn warm_up(engine: &EngineHandle) -> Result<(), AppError> {
    let submission = Submission {
        tenant: TenantId::default_tenant(),
        weight: NonZeroU32::MIN,
        adapter: None,
        tokens: vec![0],
        given: Vec::new(),
        scoring: Scoring::Off,
        sampling: SamplingParams::greedy(),
        max_tokens: 1,
        min_tokens: 0,
        stop: Vec::new(),
        priority: 0,
        deadline: None,
    };
    let mut events = engine.submit(submission).map_err(|error| AppError::WarmUp(error.to_string()))?;
    while let Some(event) = events.next().await {
        match event {
            TokenEvent::Given(_) | TokenEvent::Token(_) => {}
            TokenEvent::Finished(_) => return Ok(()),
            TokenEvent::Failed(error) => return Err(AppError::WarmUp(error.to_string())),
        }
    }
    Err(AppError::WarmUp("its thread has ended; the log says why".to_owned()))
}
