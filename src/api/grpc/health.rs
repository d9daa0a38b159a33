//! `grpc.health.v1.Health`: what [`Readiness`] says.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, stream::BoxStream};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server,
};

use super::{
    Answer,
    proto::{adapter_service_server, inference_service_server},
};
use crate::{
    api::{Readiness, State, frame::Frame},
    telemetry::Metrics,
};

/// The whole server, and its services, which are ready when it is.
const SERVICES: [&str; 3] =
    ["", inference_service_server::SERVICE_NAME, adapter_service_server::SERVICE_NAME];

/// The service.
#[derive(Clone)]
pub(super) struct Health {
    readiness: Readiness,
    metrics: Arc<Metrics>,
    stuck_after: Duration,
}

impl Health {
    pub fn of(frame: &Frame) -> Self {
        let Frame { readiness, metrics, stuck_after, .. } = frame.clone();
        Self { readiness, metrics, stuck_after }
    }

    /// Whether a step of the engine takes so long that the server should be started anew.
    fn is_stuck(&self) -> bool {
        self.metrics.step_age.at(Instant::now()) > self.stuck_after
    }

    /// The state now and at each change; over when the server drains, which must not wait for who watches.
    fn states(&self) -> impl Stream<Item = State> + use<> {
        let watch = self.readiness.watch();
        futures::stream::unfold((watch, None), |(mut watch, last)| async move {
            if last == Some(State::Draining) {
                return None;
            }
            let state = match last {
                None => *watch.borrow_and_update(),
                Some(last) => *watch.wait_for(|&state| state != last).await.ok()?,
            };
            Some((state, (watch, Some(state))))
        })
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

fn serving(state: State) -> HealthCheckResponse {
    response(if state == State::Ready { ServingStatus::Serving } else { ServingStatus::NotServing })
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Answer<HealthCheckResponse> {
        let service = request.into_inner().service;
        if !SERVICES.contains(&service.as_str()) {
            return Err(Status::not_found("there is no such service"));
        }
        let said = serving(self.readiness.state());
        Ok(Response::new(if self.is_stuck() { response(ServingStatus::NotServing) } else { said }))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Answer<Self::WatchStream> {
        let known = SERVICES.contains(&request.into_inner().service.as_str());
        let said =
            move |state| Ok(if known { serving(state) } else { response(ServingStatus::ServiceUnknown) });
        Ok(Response::new(self.states().map(said).boxed()))
    }
}
