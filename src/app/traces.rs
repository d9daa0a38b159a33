//! From the configuration to a thread that delivers traces.

use std::{sync::Arc, time::Duration};

use super::AppError;
use crate::{
    config::{
        choose_crypto,
        otlp::{self, OtlpConfig},
    },
    telemetry::{
        Metrics,
        traces::{self, Collector, Delivery, Pace, Traces},
    },
};

/// How long the last traces may take, once everything else has ended.
const FLUSH: Duration = Duration::from_secs(5);

/// Traces of a server that runs, if it is to trace.
pub(super) struct Tracing {
    started: Option<(Traces, Delivery)>,
}

impl Tracing {
    pub fn start(config: Option<&OtlpConfig>, metrics: &Arc<Metrics>) -> Result<Self, AppError> {
        let Some(config) = config else { return Ok(Self { started: None }) };
        choose_crypto();
        let client = reqwest::Client::builder()
            .user_agent(concat!("dept/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(std::io::Error::other)?;
        let url = config.endpoint.traces();
        tracing::info!(collector = %url, share = config.sample, "requests are traced");
        let collector =
            Collector { client, url, headers: config.headers.map().clone(), resource: otlp::resource() };
        let started = traces::start(collector, config.sample, Pace::default(), Arc::clone(metrics))?;
        Ok(Self { started: Some(started) })
    }

    /// Where spans are handed in.
    pub fn traces(&self) -> Option<Traces> {
        self.started.as_ref().map(|(traces, _)| traces.clone())
    }

    /// Delivers what is left, once all requests have ended.
    pub async fn finish(self) {
        if let Some((_, delivery)) = self.started {
            delivery.finish(FLUSH).await;
        }
    }
}
