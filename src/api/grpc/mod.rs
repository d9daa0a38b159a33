//! The gRPC door: the services of `proto/dept/v1`, health and reflection, over the same use cases as HTTP.
//!
//! Its routes are axum's, as the HTTP door's are, so that both have the same frame: ids, accounts, keys,
//! hosts. tonic does what stands between a route and a message.

mod access;
mod adapters;
mod body;
mod convert;
mod deadline;
mod health;
mod inference;
pub mod proto;
mod reflection;
mod speech;
mod status;
mod stream;
mod upload;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    middleware::{from_fn, from_fn_with_state},
};
use tonic::Status;

use adapters::Adapters;
use body::Punctual;
use inference::Inference;
use proto::{adapter_service_server::AdapterServiceServer, inference_service_server::InferenceServiceServer};
use tonic_health::pb::health_server::HealthServer;

use super::{
    ApiError, ErrorCode, Service,
    frame::{
        Frame, Hosts, Origins,
        access::{Doorkeeper, authorise},
        dressed, limited,
        turns::Turns,
    },
    http::HttpOptions,
};
use crate::{telemetry::traces::Traces, tenancy::Gate};

/// What a message may have beside an adapter's bytes: names, tags, lengths.
const ENVELOPE: usize = 64 << 10;

/// What the gRPC door is told.
#[derive(Debug, Clone)]
pub struct GrpcOptions {
    /// Largest message of a request, in bytes.
    pub max_body_bytes: usize,
    /// Largest upload of an adapter, in bytes, all its messages together.
    pub max_adapter_bytes: usize,
    /// How long a request's messages may take to arrive.
    pub body_timeout: Duration,
    /// Most calls in work at once; a stream counts until its head is sent. Health is not counted.
    pub max_requests: usize,
    /// How long a step may take before the server counts as stuck.
    pub stuck_after: Duration,
    /// The hosts that requests may name.
    pub hosts: Hosts,
    /// Whose uploads are in memory, of all doors together.
    pub uploads: Arc<Turns>,
    /// Where spans go; nothing is traced without.
    pub traces: Option<Traces>,
}

impl GrpcOptions {
    /// What holds for HTTP, at another address.
    pub fn beside(http: &HttpOptions, hosts: Hosts) -> Self {
        Self {
            max_body_bytes: http.max_body_bytes,
            max_adapter_bytes: http.max_adapter_bytes,
            body_timeout: http.body_timeout,
            max_requests: http.max_requests,
            stuck_after: http.stuck_after,
            hosts,
            uploads: Arc::clone(&http.uploads),
            traces: http.traces.clone(),
        }
    }
}

/// The services: for whom `gate` lets in, health and reflection for all.
pub fn public(service: Arc<Service>, gate: Arc<Gate>, options: GrpcOptions) -> Router {
    let frame = Frame {
        metrics: Arc::clone(&service.metrics),
        readiness: service.readiness.clone(),
        stuck_after: options.stuck_after,
        hosts: options.hosts,
        origins: Origins::default(),
        written: status::written,
        traces: options.traces.clone(),
    };
    let ours = ours(&service, &options);
    let health = HealthServer::new(health::Health::of(&frame));
    let theirs = reflection::routes()
        .route_service("/grpc.health.v1.Health/Check", health.clone())
        .route_service("/grpc.health.v1.Health/Watch", health)
        .layer(from_fn(status::noted));
    let keeper = Doorkeeper { gate, declared: access::declared };
    let routes = limited(ours, options.max_requests).merge(theirs);
    let routes = routes.route_layer(from_fn_with_state(keeper, authorise)).fallback(no_such_rpc);
    dressed(routes.layer(from_fn(deadline::keep)), frame).layer(from_fn(speech::check))
}

/// Our own services, a route for each rpc.
fn ours(service: &Arc<Service>, options: &GrpcOptions) -> Router {
    let patience = options.body_timeout;
    let inference = Inference { service: Arc::clone(service) };
    let inference = InferenceServiceServer::new(inference).max_decoding_message_size(options.max_body_bytes);
    let adapters = Arc::new(Adapters {
        service: Arc::clone(service),
        uploads: Arc::clone(&options.uploads),
        max_adapter_bytes: options.max_adapter_bytes,
    });
    // An upload's messages are read when it has its turn, so large ones do not add up.
    let large = options.max_adapter_bytes.saturating_add(ENVELOPE);
    let uploads = AdapterServiceServer::from_arc(Arc::clone(&adapters)).max_decoding_message_size(large);
    let adapters = AdapterServiceServer::from_arc(adapters).max_decoding_message_size(options.max_body_bytes);
    let mut routes = Router::new().route_service(access::UPLOAD, Punctual { service: uploads, patience });
    for path in access::INFERENCE {
        routes = routes.route_service(path, Punctual { service: inference.clone(), patience });
    }
    for path in access::ADAPTERS {
        routes = routes.route_service(path, Punctual { service: adapters.clone(), patience });
    }
    routes.layer(from_fn(status::told))
}

async fn no_such_rpc(request: Request) -> ApiError {
    let message = format!("there is no rpc {}: server reflection lists them", request.uri().path());
    ApiError::new(ErrorCode::NotFound, message)
}

/// What tonic calls `Result`; its error is large, and not ours to make smaller.
type Answer<T> = Result<tonic::Response<T>, Status>;

#[cfg(test)]
mod tests;
