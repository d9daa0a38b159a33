//! A request's body that must arrive in time.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::Request,
};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tower::Service;

use super::status;
use crate::api::{ApiError, ErrorCode};

/// A service whose requests' bodies must arrive within `patience`.
#[derive(Clone)]
pub(super) struct Punctual<S> {
    pub service: S,
    pub patience: Duration,
}

impl<S: Service<Request<tonic::body::Body>>> Service<Request<Body>> for Punctual<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let patience = self.patience;
        self.service.call(request.map(|body| tonic::body::Body::new(Timed { body, patience, limit: None })))
    }
}

/// A body whose time begins when it is first asked for: an upload waits for its turn before.
struct Timed {
    body: Body,
    patience: Duration,
    limit: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, patience, limit } = &mut *self;
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(|_| broken_off())));
        }
        let deadline = Instant::now() + *patience;
        let limit = limit.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        ready!(limit.as_mut().poll(context));
        let message = format!("the request's messages did not arrive within {patience:?}: send them faster");
        let error = ApiError::new(ErrorCode::RequestTimeout, message);
        Poll::Ready(Some(Err(status::carrying(error))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn broken_off() -> Status {
    status::carrying(ApiError::new(ErrorCode::InvalidRequest, "the request's messages broke off"))
}
