use axum::{Json as Answer, extract::State};

use super::{
    Door,
    dto::{DetokenizeBody, DetokenizeResponse, TokenizeBody, TokenizeResponse},
    json::Json,
    off_the_loop,
};
use crate::{api::ApiError, tenancy::Principal};

/// The tokens of a prompt, as generation would read them.
///
/// Soft-prompt rows are not among them: they have no ids.
#[utoipa::path(
    post, path = "/v1/tokenize", tag = "tokens", request_body = TokenizeBody,
    responses((status = 200, description = "The tokens", body = TokenizeResponse), super::openapi::AdapterBodyFailures)
)]
pub(super) async fn tokenize(
    State(door): State<Door>,
    principal: Principal,
    Json(body): Json<TokenizeBody>,
) -> Result<Answer<TokenizeResponse>, ApiError> {
    let (adapter, prompt) = body.read()?;
    let adapter = door.service.adapter(&principal, adapter.as_ref(), None).await?;
    let tokens = off_the_loop(move || door.service.tokenize(adapter.as_ref(), &prompt)).await?;
    Ok(Answer(tokens.into()))
}

/// The text of tokens.
///
/// The other way round of `POST /v1/tokenize`, special tokens left out.
#[utoipa::path(
    post, path = "/v1/detokenize", tag = "tokens", request_body = DetokenizeBody,
    responses((status = 200, description = "The text", body = DetokenizeResponse), super::openapi::BodyFailures)
)]
pub(super) async fn detokenize(
    State(door): State<Door>,
    Json(body): Json<DetokenizeBody>,
) -> Result<Answer<DetokenizeResponse>, ApiError> {
    let text = off_the_loop(move || door.service.detokenize(&body.ids)).await?;
    Ok(Answer(DetokenizeResponse { text }))
}
