//! Adapters by a path on the server, in the words of other servers: what loads their LoRA adapters loads these.

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::header,
    response::{IntoResponse, Response},
};

use super::{Where, about, bad_query};
use crate::{
    adapter::LoadPathError,
    api::{
        ApiError, ErrorCode,
        http::{
            Door,
            dto::{LoadLoraBody, UnloadLoraBody},
            json::Json,
            off_the_loop,
        },
    },
    domain::AdapterName,
    tenancy::Principal,
};

/// Makes the adapter in a folder of the server the current version of a name, as vLLM's route of this name does.
///
/// The folder is named from `--adapter-load-root`, or whole and below it. A name that is taken is refused as there, unless the
/// files are the very ones that it has, or `load_inplace` is true. Other fields are ignored.
#[utoipa::path(
    post, path = "/v1/load_lora_adapter", tag = "adapters", request_body = LoadLoraBody, params(Where),
    responses(
        (status = 200, description = "It is served", body = String, content_type = "text/plain",
         example = "Success: LoRA adapter 'my-task' added successfully."),
        super::super::openapi::LoadFailures,
    )
)]
pub(in crate::api::http) async fn load(
    State(door): State<Door>,
    principal: Principal,
    place: Result<Query<Where>, QueryRejection>,
    Json(body): Json<LoadLoraBody>,
) -> Result<Response, ApiError> {
    let place = place.map_err(bad_query)?.place()?;
    let name: AdapterName = body.lora_name.parse().map_err(about("lora_name"))?;
    let Some(root) = door.options.load_root.clone() else {
        let message = "this server loads no adapters from its own files: start it with --adapter-load-root DIR, or upload \
                       the files to PUT /v1/adapters/NAME";
        return Err(ApiError::new(ErrorCode::Conflict, message));
    };
    let (_turn, path) = (door.options.uploads.take(&principal.tenant().id).await, body.lora_path);
    let most = door.options.max_adapter_bytes;
    let files = off_the_loop(move || root.read(&path, most).map_err(refused)).await?;
    door.service.load_adapter(&principal, (place, &name), files, body.load_inplace).await?;
    Ok(said(&name, "added"))
}

/// Deletes an adapter, as vLLM's route of this name does.
///
/// Requests that run end as they began. Other fields are ignored.
#[utoipa::path(
    post, path = "/v1/unload_lora_adapter", tag = "adapters", request_body = UnloadLoraBody, params(Where),
    responses(
        (status = 200, description = "It is gone", body = String, content_type = "text/plain",
         example = "Success: LoRA adapter 'my-task' removed successfully."),
        super::super::openapi::ChangeFailures,
    )
)]
pub(in crate::api::http) async fn unload(
    State(door): State<Door>,
    principal: Principal,
    place: Result<Query<Where>, QueryRejection>,
    Json(body): Json<UnloadLoraBody>,
) -> Result<Response, ApiError> {
    let place = place.map_err(bad_query)?.place()?;
    let name: AdapterName = body.lora_name.parse().map_err(about("lora_name"))?;
    door.service.delete_adapter(&principal, (place, &name), None, Default::default()).await?;
    Ok(said(&name, "removed"))
}

/// What vLLM says, to the letter: some tools read it.
fn said(name: &AdapterName, what: &str) -> Response {
    let text = format!("Success: LoRA adapter '{name}' {what} successfully.");
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

fn refused(error: LoadPathError) -> ApiError {
    let code = match &error {
        LoadPathError::Outside(_) => ErrorCode::InvalidRequest,
        LoadPathError::Missing(_) => ErrorCode::AdapterNotFound,
        LoadPathError::TooLarge(_) => ErrorCode::TooLarge,
        LoadPathError::Unsound(_) => ErrorCode::InvalidAdapter,
        LoadPathError::Io { .. } => {
            tracing::error!(%error, "loading by path");
            ErrorCode::NotReady
        }
    };
    ApiError::new(code, error.to_string()).about("lora_path")
}
