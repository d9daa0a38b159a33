//! The API's description, generated from the code. `openapi.yaml` in the repository is the same, which a test holds.

use std::{collections::BTreeMap, sync::OnceLock};

use axum::{
    http::{Method, header},
    response::IntoResponse,
};
use serde_json::json;
use utoipa::{
    IntoResponses, Modify, OpenApi,
    openapi::{
        self, ContentBuilder, HeaderBuilder, Ref, RefOr, ResponseBuilder,
        schema::{ObjectBuilder, Type},
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use super::{
    access::{self, Access},
    adapters::{self, by_path},
    classify, dto, generate, health, openai, tokens,
};
use crate::api::ErrorCode;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "dept",
        description = "A server for soft-prompt adapters: one frozen backbone, thousands of DePT adapters, one batch.",
        contact(name = "Whoever runs this server")
    ),
    servers((url = "http://127.0.0.1:8080", description = "The default address")),
    paths(
        generate::generate, classify::classify, tokens::tokenize, tokens::detokenize,
        openai::completions, openai::chat_completions, openai::models::list, openai::models::show, adapters::list, adapters::show,
        adapters::put, adapters::patch, adapters::delete, adapters::versions, adapters::delete_version, adapters::content,
        adapters::set_alias, adapters::delete_alias, by_path::load, by_path::unload, health::live,
        health::ready,
    ),
    components(schemas(dto::ErrorBody, dto::StreamEvent, openai::ChatChunk)),
    modifiers(&Failures, &Keys),
    tags(
        (name = "generate", description = "Text from prompts"),
        (name = "openai", description = "What OpenAI's clients call"),
        (name = "adapters", description = "What can be applied"),
        (name = "tokens", description = "Text to token ids and back"),
        (name = "health", description = "Whether the server lives and serves"),
    )
)]
struct Description;

/// The description of the API.
pub fn openapi() -> openapi::OpenApi {
    Description::openapi()
}

/// `GET /openapi.json`.
pub(super) async fn serve() -> impl IntoResponse {
    static JSON: OnceLock<String> = OnceLock::new();
    let json = JSON.get_or_init(|| {
        serde_json::to_string(&openapi()).expect("the description is strings, numbers and maps of them")
    });
    ([(header::CONTENT_TYPE, "application/json")], json.as_str())
}

/// Puts the failures where the routes refer to them.
struct Failures;

impl Modify for Failures {
    fn modify(&self, description: &mut openapi::OpenApi) {
        let components = description.components.get_or_insert_default();
        for codes in ALL.iter().flat_map(|codes| by_status(codes.to_vec())) {
            components.responses.entry(name(&codes)).or_insert_with(|| failure(&codes).into());
        }
    }
}

/// Says which scope each route needs. A server without keys asks for none, hence the empty alternative.
struct Keys;

impl Modify for Keys {
    fn modify(&self, description: &mut openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("dept_ and 40 hexadecimal digits")
            .description(Some("An API key, where the server has `--api-keys`."))
            .build();
        let components = description.components.get_or_insert_default();
        components.security_schemes.insert(API_KEY.to_owned(), SecurityScheme::Http(scheme).into());
        for (path, item) in &mut description.paths.paths {
            let operations = [
                (Method::GET, &mut item.get),
                (Method::POST, &mut item.post),
                (Method::PUT, &mut item.put),
                (Method::PATCH, &mut item.patch),
                (Method::DELETE, &mut item.delete),
            ];
            for (method, operation) in operations {
                let Some(operation) = operation else { continue };
                if let Some(Access::Needs(scope)) = access::declared(&method, path) {
                    let keyed = SecurityRequirement::new(API_KEY, [scope.as_str()]);
                    operation.security = Some(vec![keyed, SecurityRequirement::default()]);
                }
            }
        }
    }
}

/// The name of the scheme in the description.
const API_KEY: &str = "api_key";

/// Codes that share a status, each group in the order of the table.
fn by_status(mut codes: Vec<ErrorCode>) -> Vec<Vec<ErrorCode>> {
    codes.sort_by_key(|&code| code as usize);
    codes.chunk_by(|a, b| a.row().status == b.row().status).map(<[_]>::to_vec).collect()
}

/// The name of a group of codes among the components.
fn name(codes: &[ErrorCode]) -> String {
    codes.iter().map(|code| code.as_str()).collect::<Vec<_>>().join("_or_")
}

/// References to the responses of some error codes, by status.
fn failures(codes: &[ErrorCode]) -> BTreeMap<String, RefOr<openapi::Response>> {
    let groups = by_status(codes.to_vec()).into_iter();
    groups
        .map(|codes| (codes[0].row().status.to_string(), Ref::from_response_name(name(&codes)).into()))
        .collect()
}

fn failure(codes: &[ErrorCode]) -> openapi::Response {
    let described = codes.iter().map(|code| format!("`{}`: {}", code.as_str(), code.row().meaning));
    let row = codes[0].row();
    let example = json!({"error": {
        "message": "what was wrong, with the values, and what to do", "type": row.kind, "param": null,
        "code": row.name, "request_id": "019347e2-8c1a-7d3e-9f00-3a5b7c9d1e2f",
    }});
    let schema = Ref::from_schema_name("ErrorBody");
    let content = ContentBuilder::new().schema(Some(schema)).example(Some(example)).build();
    let response = ResponseBuilder::new()
        .description(described.collect::<Vec<_>>().join("\n\n"))
        .content("application/json", content);
    let response = match row.retry_after {
        Some(_) => response.header("Retry-After", seconds()),
        None => response,
    };
    response.build()
}

fn seconds() -> openapi::Header {
    let schema = ObjectBuilder::new().schema_type(Type::Integer).build();
    HeaderBuilder::new().schema(Some(schema)).description(Some("Seconds until a retry can help")).build()
}

/// Declares the failures of a kind of route.
macro_rules! failures {
    ($($(#[doc = $doc:literal])+ $name:ident: $($code:ident)+;)+) => {$(
        $(#[doc = $doc])+
        pub(super) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
                failures(&[$(ErrorCode::$code),+])
            }
        }
    )+

    /// The codes of every kind of route.
    const ALL: &[&[ErrorCode]] = &[$(&[$(ErrorCode::$code),+]),+];
    };
}

failures! {
    /// What `/health/ready` says while it is not.
    NotReady: NotReady Draining;
    /// What `/health/live` says of a server that should be started anew.
    EngineStuck: EngineStuck;
    /// What can be wrong with a query.
    QueryFailures: InvalidRequest Unauthorized Forbidden Overloaded QuotaExceeded Internal;
    /// What can be wrong with an adapter's name.
    AdapterFailures: InvalidRequest Unauthorized Forbidden AdapterNotFound Overloaded QuotaExceeded Internal;
    /// What can be wrong with a change of an adapter.
    ChangeFailures: InvalidRequest Unauthorized Forbidden AdapterNotFound RequestTimeout Conflict PreconditionFailed
        TooLarge UnsupportedMediaType Overloaded QuotaExceeded Internal NotReady AdapterCapacity;
    /// What can be wrong with an upload.
    UploadFailures: InvalidRequest Unauthorized Forbidden RequestTimeout Conflict PreconditionFailed TooLarge
        UnsupportedMediaType InvalidAdapter Overloaded QuotaExceeded Internal NotReady;
    /// What can be wrong with a folder of the server.
    LoadFailures: InvalidRequest Unauthorized Forbidden AdapterNotFound RequestTimeout Conflict TooLarge
        UnsupportedMediaType InvalidAdapter Overloaded QuotaExceeded Internal NotReady;
    /// What can be wrong with a body.
    BodyFailures: InvalidRequest Unauthorized Forbidden RequestTimeout TooLarge UnsupportedMediaType Overloaded
        QuotaExceeded Internal;
    /// What can be wrong with a body that names an adapter.
    AdapterBodyFailures: InvalidRequest Unauthorized Forbidden AdapterNotFound RequestTimeout TooLarge
        UnsupportedMediaType Overloaded QuotaExceeded Internal;
    /// What can be wrong with a generation.
    GenerateFailures: InvalidRequest Unauthorized Forbidden AdapterNotFound RequestTimeout TooLarge
        UnsupportedMediaType InputTooLong Overloaded QuotaExceeded Internal Draining NotReady DeadlineExceeded;
}
