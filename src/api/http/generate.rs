use std::sync::Arc;

use axum::{
    Extension, Json as Answer,
    extract::State,
    response::{IntoResponse, Response},
};

use super::{
    Door,
    account::Account,
    aside_unless,
    dto::{GenerateBody, GenerateResponse, ServerSentEvent, Writer},
    json::Json,
    request_id::RequestId,
    stream,
};
use crate::{
    api::{Accepted, ApiError, collect},
    domain::GenerateRequest,
    tenancy::Principal,
};

/// Generates text, with an adapter or without.
///
/// With `"stream": true` the answer is server-sent events: `data: {"index", "position", "token"}` for each token, one
/// `data:` with the whole response, then `data: [DONE]`. A failure in between is one `data: {"error": …}` and no
/// `[DONE]`. Closing the connection cancels the request.
#[utoipa::path(
    post, path = "/v1/generate", tag = "generate", request_body = GenerateBody,
    responses(
        (status = 200, description = "The text, whole or as a stream of events", content(
            (GenerateResponse = "application/json"),
            (ServerSentEvent = "text/event-stream"),
        )),
        super::openapi::GenerateFailures,
    )
)]
pub(super) async fn generate(
    State(door): State<Door>,
    Extension(RequestId(id)): Extension<RequestId>,
    Extension(account): Extension<Arc<Account>>,
    principal: Principal,
    Json(body): Json<GenerateBody>,
) -> Result<Response, ApiError> {
    let (streams, batch) = (body.streams(), body.is_batch());
    let request =
        GenerateRequest { tenant: principal.tenant().id.clone(), ..GenerateRequest::try_from(body)? };
    let tokens = request.sampling.logprobs > 0;
    let service = Arc::clone(&door.service);
    if let Some(trace) = account.trace() {
        trace.generates("text_completion", &service.asked_for(request.adapter.as_ref()), &request, streams);
    }
    let adapter = service.adapter(&principal, request.adapter.as_ref(), account.trace()).await?;
    let light = request.is_light();
    let accepted = aside_unless(light, move || service.generate(&principal, &request, adapter)).await?;
    let Accepted { model, adapter, events, gathering, .. } = accepted.traced(&account);
    let tokenizer = door.service.tokenizer.clone();
    let writer = Writer { id, model: model.name.clone(), adapter, batch, tokens, tokenizer };
    if streams {
        return Ok(stream::respond(writer, events, gathering, account, door.options.ping_interval));
    }
    let results = collect(events, gathering).await?;
    Ok(Answer(writer.response(results)).into_response())
}
