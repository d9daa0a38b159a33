//! Every request has an id, and every failure becomes the one shape of its wire, which holds it.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::Instrument;
use uuid::Uuid;

use super::{Frame, account::is_work};
use crate::api::{
    ApiError,
    trace::{TRACEPARENT, Trace},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is taken over from a client.
const MAX_ID: usize = 128;

/// The id of the request that is being answered.
#[derive(Debug, Clone)]
pub(in crate::api) struct RequestId(pub String);

/// Takes over or makes the id, and a place in a trace where the server traces; hands them to the handler, and finishes the
/// response.
pub(super) async fn identify(State(frame): State<Frame>, mut request: Request, next: Next) -> Response {
    let sent = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let id = sent.filter(|id| is_id(id)).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    request.extensions_mut().insert(RequestId(id.clone()));
    let trace = trace(&frame, &request);
    let trace_id = trace.as_ref().map(|trace| tracing::field::display(trace.id()));
    let span =
        tracing::info_span!("request", id, trace_id, method = %request.method(), path = request.uri().path());
    if let Some(trace) = &trace {
        request.extensions_mut().insert(Arc::clone(trace));
    }
    let mut response = next.run(request).instrument(span).await;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let headers = std::mem::take(response.headers_mut());
        response = (frame.written)(&error, &id);
        // What the layers below said beside the body, such as Allow.
        for (name, value) in headers.iter().filter(|(name, _)| *name == header::ALLOW) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let place = trace.and_then(|trace| HeaderValue::try_from(trace.context().to_string()).ok());
    if let Some(place) = place {
        response.headers_mut().insert(TRACEPARENT, place);
    }
    response
}

/// The trace of a request that does a client's work.
fn trace(frame: &Frame, request: &Request) -> Option<Arc<Trace>> {
    let traces = frame.traces.as_ref()?;
    let endpoint = request.extensions().get::<MatchedPath>()?;
    is_work(endpoint.as_str()).then(|| Arc::new(Trace::begin(traces.clone(), request)))
}

/// Whether `text` can stand in a log line and in a header.
fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Rides as an extension until `identify` writes it with the request's id.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
