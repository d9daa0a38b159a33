//! A gRPC server on a port, its engine a script, and clients of it.

use std::sync::{Arc, mpsc};

use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use super::super::{
    GrpcOptions,
    proto::{
        GenerateRequest, adapter_service_client::AdapterServiceClient, generate_request::Prompt,
        inference_service_client::InferenceServiceClient,
    },
    public,
};
use crate::{
    api::http::tests::{
        kit::{GOOD, Stage, say},
        wire::{PATIENT, Wire},
    },
    config::ConnectionLimits,
    engine::{Arrival, Command},
    tenancy::ApiKey,
};

/// A server on a port.
pub struct Server {
    pub wire: Wire,
    pub channel: Channel,
}

impl Server {
    /// With an engine that does `script` with every sequence.
    pub async fn of(stage: Stage, script: impl Fn(Arrival) + Send + 'static) -> Self {
        Self::within(stage, PATIENT, script).await
    }

    pub async fn within(
        stage: Stage,
        limits: ConnectionLimits,
        script: impl Fn(Arrival) + Send + 'static,
    ) -> Self {
        let (service, gate, options) = stage.parts(script);
        let options = GrpcOptions::beside(&options, options.hosts);
        let wire = Wire::serve(public(service, gate, options), limits).await;
        let channel = endpoint(&wire).connect().await.unwrap();
        Self { wire, channel }
    }

    /// With an engine that takes nothing, so that all waits.
    pub async fn quiet(stage: Stage) -> (Self, mpsc::Receiver<Command>) {
        let Stage { service, inbox, options, gate } = stage;
        let options = GrpcOptions::beside(&options, options.hosts);
        let wire = Wire::serve(public(Arc::new(service), gate, options), PATIENT).await;
        let channel = endpoint(&wire).connect().await.unwrap();
        (Self { wire, channel }, inbox)
    }

    /// With an engine that always says `good`.
    pub async fn start() -> Self {
        Self::of(Stage::new(), |arrival| say(&arrival, &[(GOOD, "good")], "")).await
    }

    /// With an engine that hands its sequences to the test.
    pub async fn staged(stage: Stage) -> (Self, mpsc::Receiver<Arrival>) {
        let (send, arrivals) = mpsc::channel();
        let server = Self::of(stage, move |arrival| {
            let _ = send.send(arrival);
        });
        (server.await, arrivals)
    }

    pub fn inference(&self) -> InferenceServiceClient<Channel> {
        InferenceServiceClient::new(self.channel.clone())
    }

    pub fn adapters(&self) -> AdapterServiceClient<Channel> {
        AdapterServiceClient::new(self.channel.clone())
    }
}

pub fn endpoint(wire: &Wire) -> Endpoint {
    Endpoint::from_shared(format!("http://{}", wire.address)).unwrap()
}

/// The next sequence, waited for off the test's thread.
pub async fn next(arrivals: mpsc::Receiver<Arrival>) -> (Arrival, mpsc::Receiver<Arrival>) {
    tokio::task::spawn_blocking(move || (arrivals.recv().unwrap(), arrivals)).await.unwrap()
}

/// A request to generate from `text`.
pub fn asking(text: &str) -> GenerateRequest {
    GenerateRequest { prompt: Some(Prompt::Text(text.into())), ..GenerateRequest::default() }
}

pub fn with_key<T>(message: T, key: &ApiKey) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {}", key.reveal()).parse().unwrap());
    request
}

/// A failure: its code, the reason, the field at fault and the message; the shape of its details is checked.
#[track_caller]
pub fn told(status: &Status) -> (Code, String, Option<String>, String) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "dept.v1");
    let id = &details.request_info().expect("RequestInfo").request_id;
    assert_eq!(status.metadata().get("x-request-id").map(|id| id.to_str().unwrap()), Some(id.as_str()));
    let field = details.bad_request().map(|bad| {
        assert_eq!(bad.field_violations[0].description, status.message());
        bad.field_violations[0].field.clone()
    });
    (status.code(), info.reason.clone(), field, status.message().to_owned())
}

/// The seconds after which a failure says that it may be tried again.
pub fn retry(status: &Status) -> Option<u64> {
    let seconds = status.get_error_details().retry_info()?.retry_delay?.as_secs();
    let pushed = status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap();
    assert_eq!(pushed, (seconds * 1000).to_string());
    Some(seconds)
}
