use std::sync::Arc;

use axum::{Extension, Json as Answer, extract::State};

use super::{
    Door,
    account::Account,
    aside_unless,
    dto::{ClassifyBody, ClassifyResponse},
    json::Json,
    request_id::RequestId,
};
use crate::{api::ApiError, domain::ClassifyRequest, tenancy::Principal};

/// Scores labels as answers to a prompt.
///
/// A label's `logprob` is the log-likelihood of its tokens and the end token behind the prompt; `probability` is the softmax
/// over the labels. The prompt is computed once.
#[utoipa::path(
    post, path = "/v1/classify", tag = "generate", request_body = ClassifyBody,
    responses((status = 200, description = "The scores", body = ClassifyResponse), super::openapi::GenerateFailures)
)]
pub(super) async fn classify(
    State(door): State<Door>,
    Extension(RequestId(id)): Extension<RequestId>,
    Extension(account): Extension<Arc<Account>>,
    principal: Principal,
    Json(body): Json<ClassifyBody>,
) -> Result<Answer<ClassifyResponse>, ApiError> {
    let batch = body.is_batch();
    let request =
        ClassifyRequest { tenant: principal.tenant().id.clone(), ..ClassifyRequest::try_from(body)? };
    let wanted = request.adapter.as_ref();
    if let Some(trace) = account.trace() {
        trace.classifies(&door.service.asked_for(wanted), &request);
    }
    let adapter = door.service.adapter(&principal, wanted, account.trace()).await?;
    let light = request.is_light();
    let running = aside_unless(light, move || door.service.classify(&principal, &request, adapter)).await?;
    let running = running.traced(&account);
    let (model, adapter) = (running.model.clone(), running.adapter.clone());
    let results = running.finish().await?;
    Ok(Answer(ClassifyResponse::new(id, model, adapter.as_ref(), results, batch)))
}
