//! `model`: what it names, and what there is to name.

use std::time::UNIX_EPOCH;

use axum::{
    Json as Answer,
    extract::{Path, State, rejection::PathRejection},
};

use super::{
    errors::{about_model, no_model},
    forms::{ModelList, ModelObject},
};
use crate::{
    adapter::{AdapterLease, catalogue::Found},
    api::{ApiError, Service, Trace, http::Door},
    domain::AdapterRef,
    tenancy::Principal,
};

/// Longest name that a trace takes up.
const MAX_NAME: usize = 160;

/// The adapter that `model` names, loaded; `None` is the backbone.
pub(super) async fn resolve(
    service: &Service,
    principal: &Principal,
    model: &str,
    trace: Option<&Trace>,
) -> Result<Option<AdapterLease>, ApiError> {
    if service.engine().model().name == model {
        return Ok(None);
    }
    // What can't be a name is nobody's.
    let wanted: AdapterRef = model.parse().map_err(|_| no_model(model))?;
    let adapter = service.adapter(principal, Some(&wanted), trace).await;
    adapter.map_err(|error| about_model(error, model))
}

/// `model` as a trace has it: what can't be a name may be anything, a prompt too.
pub(super) fn known_as(model: &str) -> &str {
    if model.len() <= MAX_NAME && model.bytes().all(|b| b.is_ascii_graphic()) { model } else { "_other" }
}

/// What can be asked for as `model`: the backbone, and the adapters and aliases that the key may use.
///
/// All on one page, as OpenAI's clients expect.
#[utoipa::path(
    get, path = "/v1/models", operation_id = "list_models", tag = "openai",
    responses(
        (status = 200, description = "All of them", body = ModelList), crate::api::http::openapi::QueryFailures,
    )
)]
pub(in crate::api::http) async fn list(State(door): State<Door>, principal: Principal) -> Answer<ModelList> {
    let backbone = backbone(&door);
    let (adapters, _) = door.service.list_adapters(&principal, usize::MAX, None);
    let adapters = adapters.iter().map(|(name, found)| adapter(&backbone.id, name.to_string(), found));
    let adapters: Vec<ModelObject> = adapters.collect();
    Answer(ModelList { object: "list", data: [backbone].into_iter().chain(adapters).collect() })
}

/// One of the models.
///
/// The backbone, an adapter, one version of it, or an alias.
#[utoipa::path(
    get, path = "/v1/models/{model}", operation_id = "get_model", tag = "openai",
    params(("model" = String, Path, description = "An adapter's name, `name@version` or the backbone's", example = "sst2")),
    responses(
        (status = 200, description = "What it is", body = ModelObject), crate::api::http::openapi::AdapterFailures,
    )
)]
pub(in crate::api::http) async fn show(
    State(door): State<Door>,
    principal: Principal,
    model: Result<Path<String>, PathRejection>,
) -> Result<Answer<ModelObject>, ApiError> {
    let Path(model) = model.map_err(|rejection| ApiError::invalid("model", rejection.body_text()))?;
    let backbone = backbone(&door);
    if backbone.id == model {
        return Ok(Answer(backbone));
    }
    let wanted: AdapterRef = model.parse().map_err(|_| no_model(&model))?;
    let found = door.service.find_adapter(&principal, &wanted).await;
    let found = found.map_err(|error| about_model(error, &model))?;
    Ok(Answer(adapter(&backbone.id, model, &found)))
}

fn backbone(door: &Door) -> ModelObject {
    ModelObject {
        id: door.service.engine().model().name.clone(),
        object: "model",
        created: door.started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        owned_by: "dept".to_owned(),
        parent: None,
    }
}

fn adapter(backbone: &str, id: String, found: &Found) -> ModelObject {
    ModelObject {
        id,
        object: "model",
        created: found.version.created_ms / 1000,
        owned_by: found.namespace.to_string(),
        parent: Some(backbone.to_owned()),
    }
}
