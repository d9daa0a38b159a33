//! Adapters over HTTP.

pub(super) mod by_path;
mod conditions;
mod download;
mod upload;

use std::fmt::Display;

use axum::{
    Json as Answer,
    extract::{
        Path, Query, Request, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Door,
    dto::{AdapterList, AdapterObject, AliasBody, AliasObject, PatchAdapterBody, VersionList},
    json::Json,
};
use crate::{
    adapter::catalogue::{Change, Found},
    api::{ApiError, Site},
    domain::{AdapterName, AdapterRef, NameError},
    tenancy::Principal,
};

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// Which page of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Most adapters on it.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Begin behind this name: `next` of the page before.
    #[param(pattern = "^[a-z0-9][a-z0-9._-]{0,63}$")]
    after: Option<String>,
    /// Only adapters whose names contain this text.
    search: Option<String>,
}

/// Where a change is made.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Where {
    /// `home`, the tenant's own namespace, or `shared`, what all tenants see, which needs the admin scope.
    #[param(default = "home", pattern = "^(home|shared)$")]
    namespace: Option<String>,
}

impl Where {
    fn place(&self) -> Result<Site, ApiError> {
        match self.namespace.as_deref() {
            None | Some("home") => Ok(Site::Home),
            Some("shared") => Ok(Site::Shared),
            Some(other) => {
                let message = format!("namespace is '{other}': use home or shared");
                Err(ApiError::invalid("namespace", message))
            }
        }
    }
}

/// The adapters and aliases in the order of their names.
///
/// A page at a time: give `next` of one page as `after` for the next.
#[utoipa::path(
    get, path = "/v1/adapters", operation_id = "list_adapters", tag = "adapters", params(Page),
    responses((status = 200, description = "A page of them", body = AdapterList), super::openapi::QueryFailures)
)]
pub(super) async fn list(
    State(door): State<Door>,
    principal: Principal,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Answer<AdapterList>, ApiError> {
    let Query(page) = page.map_err(bad_query)?;
    let limit = page.limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ApiError::invalid("limit", format!("limit is {limit}: use 1 to {MAX_PAGE}")));
    }
    let after: Option<AdapterName> =
        page.after.as_deref().map(str::parse).transpose().map_err(about("after"))?;
    let search = page.search.unwrap_or_default().to_lowercase();
    let (list, more) = door.service.search_adapters(&principal, &search, limit, after.as_ref());
    let next = list.last().filter(|_| more).map(|(name, _)| name.to_string());
    let adapters = list.iter().map(|(name, found)| AdapterObject::new(name, found)).collect();
    Ok(Answer(AdapterList { adapters, next }))
}

/// One adapter, or what an alias stands for. The ETag is its version.
///
/// With its card and its measured results. `name@version` is an older version, by 12 or more of its digits.
#[utoipa::path(
    get, path = "/v1/adapters/{name}", operation_id = "get_adapter", tag = "adapters",
    params(("name" = String, Path, description = "The adapter's name, or `name@version`", pattern = "^[a-z0-9][a-z0-9._-]{0,63}(@(sha256:)?[0-9a-f]{12,64})?$", example = "sst2")),
    responses((status = 200, description = "What it is", body = AdapterObject), super::openapi::AdapterFailures)
)]
pub(super) async fn show(
    State(door): State<Door>,
    principal: Principal,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let wanted = reference(name)?;
    let found = door.service.find_adapter(&principal, &wanted).await?;
    Ok(tagged(StatusCode::OK, &found, Answer(AdapterObject::new(&wanted.name, &found))))
}

/// Uploads an adapter: its files become the current version, which the next request gets; requests that run keep theirs.
///
/// The body is multipart (`config`, `weights`, and maybe `card`), a zip or a gzipped tar archive of the files. Every tensor is
/// checked before anything is stored. `If-Match: "sha256:…"` and `If-None-Match: *` make the upload conditional.
#[utoipa::path(
    put, path = "/v1/adapters/{name}", operation_id = "put_adapter", tag = "adapters",
    params(("name" = String, Path, description = "The adapter's name", pattern = "^[a-z0-9][a-z0-9._-]{0,63}$", example = "my-task"), Where),
    request_body(content(
        (upload::Parts = "multipart/form-data"), (Vec<u8> = "application/zip"), (Vec<u8> = "application/gzip"),
    )),
    responses(
        (status = 200, description = "It has a new version, or had this one", body = AdapterObject),
        (status = 201, description = "There was none of the name", body = AdapterObject),
        super::openapi::UploadFailures,
    )
)]
pub(super) async fn put(
    State(door): State<Door>,
    principal: Principal,
    name: Result<Path<String>, PathRejection>,
    place: Result<Query<Where>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (name, place) = (own_name(name)?, place.map_err(bad_query)?.place()?);
    let precondition = conditions::of(request.headers())?;
    // Until it is stored: so long its bytes are in memory.
    let _turn = door.options.uploads.take(&principal.tenant().id).await;
    let files = upload::read(&door, request).await?;
    let published = door.service.put_adapter(&principal, (place, &name), files, precondition).await?;
    let status = if published.change == Change::Created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(tagged(status, &published.found, Answer(AdapterObject::new(&name, &published.found))))
}

/// Keeps an adapter in memory, or no longer.
///
/// A pinned adapter is loaded at once and answers its first request without waiting for the store.
#[utoipa::path(
    patch, path = "/v1/adapters/{name}", operation_id = "patch_adapter", tag = "adapters", request_body = PatchAdapterBody,
    params(("name" = String, Path, description = "The adapter's name", pattern = "^[a-z0-9][a-z0-9._-]{0,63}$", example = "my-task"), Where),
    responses((status = 200, description = "What it is now", body = AdapterObject), super::openapi::ChangeFailures)
)]
pub(super) async fn patch(
    State(door): State<Door>,
    principal: Principal,
    name: Result<Path<String>, PathRejection>,
    place: Result<Query<Where>, QueryRejection>,
    headers: HeaderMap,
    Json(body): Json<PatchAdapterBody>,
) -> Result<Response, ApiError> {
    let (name, place) = (own_name(name)?, place.map_err(bad_query)?.place()?);
    let precondition = conditions::of(&headers)?;
    let found = door.service.pin_adapter(&principal, (place, &name), body.pinned, precondition).await?;
    Ok(tagged(StatusCode::OK, &found, Answer(AdapterObject::new(&name, &found))))
}

/// Deletes an adapter with all its versions. Requests that run end as they began.
///
/// Adapters that come with the server can't be deleted here, nor one that an alias stands for (409). `If-Match` makes it
/// conditional.
#[utoipa::path(
    delete, path = "/v1/adapters/{name}", operation_id = "delete_adapter", tag = "adapters",
    params(("name" = String, Path, description = "The adapter's name", pattern = "^[a-z0-9][a-z0-9._-]{0,63}$", example = "my-task"), Where),
    responses((status = 204, description = "It is gone"), super::openapi::ChangeFailures)
)]
pub(super) async fn delete(
    State(door): State<Door>,
    principal: Principal,
    name: Result<Path<String>, PathRejection>,
    place: Result<Query<Where>, QueryRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let (name, place) = (own_name(name)?, place.map_err(bad_query)?.place()?);
    let precondition = conditions::of(&headers)?;
    door.service.delete_adapter(&principal, (place, &name), None, precondition).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The versions of an adapter, the current one first. The last ten are kept, and those that aliases stand for.
///
/// Each is used as `name@version`.
#[utoipa::path(
    get, path = "/v1/adapters/{name}/versions", operation_id = "list_adapter_versions", tag = "adapters",
    params(("name" = String, Path, description = "The adapter's name", pattern = "^[a-z0-9][a-z0-9._-]{0,63}$", example = "sst2")),
    responses((status = 200, description = "Its versions", body = VersionList), super::openapi::AdapterFailures)
)]
pub(super) async fn versions(
    State(door): State<Door>,
    principal: Principal,
    name: Result<Path<String>, PathRejection>,
) -> Result<Answer<VersionList>, ApiError> {
    let name = own_name(name)?;
    let versions = door.service.adapter_versions(&principal, &name).await?;
    Ok(Answer(VersionList {
        versions: versions.iter().map(|found| AdapterObject::new(&name, found)).collect(),
    }))
}

/// Deletes one version; the newest of those left is current then.
///
/// With the last version the adapter is gone. A version that an alias stands for stays (409).
#[utoipa::path(
    delete, path = "/v1/adapters/{name}/versions/{version}", operation_id = "delete_adapter_version", tag = "adapters",
    params(
        ("name" = String, Path, description = "The adapter's name", pattern = "^[a-z0-9][a-z0-9._-]{0,63}$", example = "my-task"),
        ("version" = String, Path, description = "12 or more digits of the version", pattern = "^(sha256:)?[0-9a-f]{12,64}$", example = "9f86d081884c"),
        Where,
    ),
    responses((status = 204, description = "It is gone"), super::openapi::ChangeFailures)
)]
pub(super) async fn delete_version(
    State(door): State<Door>,
    principal: Principal,
    path: Result<Path<(String, String)>, PathRejection>,
    place: Result<Query<Where>, QueryRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let Path((name, version)) = path.map_err(bad_path)?;
    let name: AdapterName = name.parse().map_err(about("name"))?;
    let version = version.parse().map_err(about("version"))?;
    let (place, precondition) = (place.map_err(bad_query)?.place()?, conditions::of(&headers)?);
    door.service.delete_adapter(&principal, (place, &name), Some(&version), precondition).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An adapter's files, as a zip archive that an upload takes again.
///
/// What the server keeps, as it was uploaded: config, weights and card. The ETag is the version.
#[utoipa::path(
    get, path = "/v1/adapters/{name}/content", operation_id = "get_adapter_content", tag = "adapters",
    params(("name" = String, Path, description = "The adapter's name, or `name@version`", pattern = "^[a-z0-9][a-z0-9._-]{0,63}(@(sha256:)?[0-9a-f]{12,64})?$", example = "sst2")),
    responses(
        (status = 200, description = "The archive", body = Vec<u8>, content_type = "application/zip"),
        super::openapi::AdapterFailures,
    )
)]
pub(super) async fn content(
    State(door): State<Door>,
    principal: Principal,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let wanted = reference(name)?;
    let turn = door.downloads.take(&principal.tenant().id).await;
    let (found, bytes) = door.service.adapter_content(&principal, &wanted).await?;
    let length = HeaderValue::from(bytes.len());
    let file = HeaderValue::try_from(format!("attachment; filename=\"{}.zip\"", wanted.name));
    let mut response = tagged(StatusCode::OK, &found, download::body(bytes, turn));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    headers.insert(header::CONTENT_DISPOSITION, file.expect("a name is letters and digits"));
    Ok(response)
}

/// Lets an alias stand for a version of an adapter, from one request to the next.
///
/// Requests name an alias like an adapter. `If-Match` and `If-None-Match: *` make the change conditional.
#[utoipa::path(
    put, path = "/v1/aliases/{alias}", tag = "adapters", request_body = AliasBody,
    params(("alias" = String, Path, description = "The alias", pattern = "^[a-z0-9][a-z0-9._-]{0,63}$", example = "production"), Where),
    responses(
        (status = 200, description = "It stands for another version, or for the same", body = AliasObject),
        (status = 201, description = "There was none of the name", body = AliasObject),
        super::openapi::ChangeFailures,
    )
)]
pub(super) async fn set_alias(
    State(door): State<Door>,
    principal: Principal,
    alias: Result<Path<String>, PathRejection>,
    place: Result<Query<Where>, QueryRejection>,
    headers: HeaderMap,
    Json(body): Json<AliasBody>,
) -> Result<Response, ApiError> {
    let (alias, place) = (own_name(alias)?, place.map_err(bad_query)?.place()?);
    let target: AdapterRef = body.target.parse().map_err(about("target"))?;
    let precondition = conditions::of(&headers)?;
    let (change, found) = door.service.set_alias(&principal, (place, &alias), &target, precondition).await?;
    let status = if change == Change::Created { StatusCode::CREATED } else { StatusCode::OK };
    let object =
        AliasObject { alias: alias.to_string(), target: format!("{}@{}", found.name, found.version.version) };
    Ok(tagged(status, &found, Answer(object)))
}

/// Deletes an alias; what it stood for stays.
///
/// Requests that name it are answered by 404 from then on; those that run end as they began.
#[utoipa::path(
    delete, path = "/v1/aliases/{alias}", tag = "adapters",
    params(("alias" = String, Path, description = "The alias", pattern = "^[a-z0-9][a-z0-9._-]{0,63}$", example = "production"), Where),
    responses((status = 204, description = "It is gone"), super::openapi::ChangeFailures)
)]
pub(super) async fn delete_alias(
    State(door): State<Door>,
    principal: Principal,
    alias: Result<Path<String>, PathRejection>,
    place: Result<Query<Where>, QueryRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let (alias, place) = (own_name(alias)?, place.map_err(bad_query)?.place()?);
    let precondition = conditions::of(&headers)?;
    door.service.delete_alias(&principal, (place, &alias), precondition).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `name` or `name@version` in a path.
fn reference(name: Result<Path<String>, PathRejection>) -> Result<AdapterRef, ApiError> {
    name.map_err(bad_path)?.parse().map_err(about("name"))
}

fn own_name(name: Result<Path<String>, PathRejection>) -> Result<AdapterName, ApiError> {
    name.map_err(bad_path)?.parse().map_err(about("name"))
}

fn bad_path(error: PathRejection) -> ApiError {
    ApiError::invalid("name", error.body_text())
}

fn bad_query(error: QueryRejection) -> ApiError {
    ApiError::invalid("query", error.body_text())
}

fn about(param: &'static str) -> impl Fn(NameError) -> ApiError {
    move |error| ApiError::invalid(param, error.to_string())
}

/// A response whose ETag is a version.
fn tagged(status: StatusCode, found: &Found, body: impl IntoResponse) -> Response {
    let mut response = (status, body).into_response();
    let tag = |version: &dyn Display| HeaderValue::try_from(format!("\"{version}\""));
    let tag = tag(&found.version.version).expect("a version is hexadecimal digits");
    response.headers_mut().insert(header::ETAG, tag);
    response
}
