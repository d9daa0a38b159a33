//! Whether a client speaks gRPC at all. Who does not gets an answer that it can read.

use axum::{
    extract::Request,
    http::{StatusCode, Version, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

const ADVICE: &str =
    "this address speaks gRPC (proto/dept/v1), over HTTP/2: the JSON API is at the address of --http\n";

/// Passes gRPC on. Everything else is 415, as gRPC asks for, so that no client takes an error's 200 for success.
pub(super) async fn check(request: Request, next: Next) -> Response {
    let kind = request.headers().get(header::CONTENT_TYPE).map(|value| value.as_bytes());
    let is_grpc = kind.and_then(|kind| kind.strip_prefix(b"application/grpc")).is_some_and(|rest| {
        // Not application/grpc-web, whose frames are others.
        rest.is_empty() || rest.starts_with(b"+proto") || rest.starts_with(b";")
    });
    if is_grpc && request.version() == Version::HTTP_2 {
        return next.run(request).await;
    }
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, ADVICE).into_response()
}
