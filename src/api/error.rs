use std::time::Duration;

use tonic::Code;

use crate::{
    adapter::{CatalogueError, MisfitError, residency::LoadError, store::StoreError},
    domain::{AdapterName, NameError, SamplingError, SequenceError},
    engine::SubmitError,
    telemetry::StoreFault,
    tenancy::{Denied, PriorityError, QuotaError},
};

/// What went wrong, as a client's program sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request is malformed or a value is out of its range.
    InvalidRequest,
    /// No API key was sent, or one that is not known.
    Unauthorized,
    /// The key may not do this, or the Host or the Origin is not one that this server answers to.
    Forbidden,
    /// No adapter of that name or version.
    AdapterNotFound,
    /// No such path.
    NotFound,
    /// The path takes other methods.
    MethodNotAllowed,
    /// The body arrived too slowly.
    RequestTimeout,
    /// The change is at odds with what is there.
    Conflict,
    /// The condition of a change does not hold.
    PreconditionFailed,
    /// The body is over the limit.
    TooLarge,
    /// The body is not JSON by its content type.
    UnsupportedMediaType,
    /// The adapter's files are not usable.
    InvalidAdapter,
    /// The prompt is longer than the adapter or the model takes.
    InputTooLong,
    /// The queue is full.
    Overloaded,
    /// The tenant has used what it may have.
    QuotaExceeded,
    /// The request's head is over the limit.
    HeadTooLarge,
    /// A fault of the server.
    Internal,
    /// The server is shutting down.
    Draining,
    /// The model is not loaded yet, or the engine has stopped.
    NotReady,
    /// A step of the engine does not end.
    EngineStuck,
    /// The request's own deadline passed.
    DeadlineExceeded,
    /// Memory for adapters is full, or too small for this one.
    AdapterCapacity,
}

/// One line of the error table: how a code looks on each wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorRow {
    /// The code that the line is about.
    pub code: ErrorCode,
    /// `error.code` in the body.
    pub name: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// `error.type` in the body.
    pub kind: &'static str,
    /// The canonical gRPC code.
    pub grpc: Code,
    /// Seconds in `Retry-After`, where a retry can help.
    pub retry_after: Option<u32>,
    /// `x-should-retry`, where a client library would guess wrong.
    pub should_retry: Option<bool>,
    /// When it happens and what to do.
    pub meaning: &'static str,
}

const fn row(
    code: ErrorCode,
    name: &'static str,
    status: u16,
    kind: &'static str,
    grpc: Code,
    meaning: &'static str,
) -> ErrorRow {
    ErrorRow { code, name, status, kind, grpc, retry_after: None, should_retry: None, meaning }
}

impl ErrorRow {
    const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    const fn never_retry(mut self) -> Self {
        self.should_retry = Some(false);
        self
    }
}

const REQUEST: &str = "invalid_request_error";
const SERVER: &str = "server_error";
const UNAVAILABLE: &str = "unavailable_error";

#[rustfmt::skip]
const TABLE: [ErrorRow; 22] = [
    row(ErrorCode::InvalidRequest, "invalid_request", 400, REQUEST, Code::InvalidArgument,
        "The request is malformed, names an unknown field or holds a value out of range; `param` names the field."),
    row(ErrorCode::Unauthorized, "unauthorized", 401, "authentication_error", Code::Unauthenticated,
        "The server has keys and the request has none, or one that is not known: send `authorization: Bearer dept_…`."),
    row(ErrorCode::Forbidden, "forbidden", 403, "permission_error", Code::PermissionDenied,
        "The key has not the scope that the route needs; or the Host or Origin header names a host that a server without \
         keys does not answer to."),
    row(ErrorCode::AdapterNotFound, "adapter_not_found", 404, "not_found_error", Code::NotFound,
        "No adapter has this name or version; `GET /v1/adapters` lists them."),
    row(ErrorCode::NotFound, "not_found", 404, "not_found_error", Code::Unimplemented,
        "No such path or rpc; `GET /openapi.json` and server reflection list them."),
    row(ErrorCode::MethodNotAllowed, "method_not_allowed", 405, REQUEST, Code::Unimplemented,
        "The path takes other methods; the Allow header lists them."),
    row(ErrorCode::RequestTimeout, "request_timeout", 408, REQUEST, Code::DeadlineExceeded,
        "The request's body did not arrive in time."),
    row(ErrorCode::Conflict, "conflict", 409, "conflict_error", Code::FailedPrecondition,
        "The name is an alias, comes with the server or is in use, or somebody changed it at the same moment; the message says \
         which."),
    row(ErrorCode::PreconditionFailed, "precondition_failed", 412, "conflict_error", Code::Aborted,
        "If-Match or If-None-Match does not hold: somebody changed the adapter since you looked."),
    row(ErrorCode::TooLarge, "too_large", 413, REQUEST, Code::ResourceExhausted,
        "The request's body or message is over `--max-body-bytes`, or an upload over `--max-adapter-bytes`."),
    row(ErrorCode::UnsupportedMediaType, "unsupported_media_type", 415, REQUEST, Code::Unimplemented,
        "The body is not sent as `content-type: application/json` in UTF-8, or it is compressed."),
    row(ErrorCode::InvalidAdapter, "invalid_adapter", 422, REQUEST, Code::InvalidArgument,
        "The adapter's files are not usable with this model; the message names tensor, expected and found."),
    row(ErrorCode::InputTooLong, "input_too_long", 422, REQUEST, Code::InvalidArgument,
        "The prompt is longer than the adapter or the model takes; shorten it or set `truncate`."),
    row(ErrorCode::Overloaded, "overloaded", 429, "rate_limit_error", Code::ResourceExhausted,
        "The queue is full; retry later.").retry_after(1),
    row(ErrorCode::QuotaExceeded, "quota_exceeded", 429, "rate_limit_error", Code::ResourceExhausted,
        "The tenant has used its requests, its tokens or its places; Retry-After says when there is room again.")
        .retry_after(1),
    row(ErrorCode::HeadTooLarge, "head_too_large", 431, REQUEST, Code::ResourceExhausted,
        "The request's first line and headers are over 32 KiB or 100 headers."),
    row(ErrorCode::Internal, "internal", 500, SERVER, Code::Internal,
        "A fault of the server; its log has the cause under the request's id."),
    row(ErrorCode::Draining, "draining", 503, UNAVAILABLE, Code::Unavailable,
        "The server is shutting down; retry on another replica.").retry_after(1),
    row(ErrorCode::NotReady, "not_ready", 503, UNAVAILABLE, Code::Unavailable,
        "The model is not loaded yet, the engine has stopped, the adapter store does not answer, or a pinned adapter is \
         waited for (`/health/ready` with `--wait-for-pinned`).").retry_after(5),
    row(ErrorCode::EngineStuck, "engine_stuck", 503, UNAVAILABLE, Code::Unavailable,
        "On `/health/live`: a step of the engine has been running for longer than `--stuck-after`. Whoever watches the server \
         should start it anew.").retry_after(5),
    row(ErrorCode::DeadlineExceeded, "deadline_exceeded", 504, "timeout_error", Code::DeadlineExceeded,
        "The request did not finish within its own `timeout_ms`, or its call's deadline.").never_retry(),
    row(ErrorCode::AdapterCapacity, "adapter_capacity", 507, UNAVAILABLE, Code::ResourceExhausted,
        "Memory for adapters (`--adapter-host-bytes`) is full of adapters in use, or too small for this one; or the adapter \
         store has no room for a change.").retry_after(1),
];

impl ErrorCode {
    /// Every line of the table.
    pub fn table() -> &'static [ErrorRow] {
        &TABLE
    }

    /// How this code looks on each wire.
    pub fn row(self) -> &'static ErrorRow {
        &TABLE[self as usize]
    }

    /// `error.code` in the body.
    pub fn as_str(self) -> &'static str {
        self.row().name
    }
}

/// Any failure that a client is told of. The code decides the status on every wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What went wrong, for programs.
    pub code: ErrorCode,
    /// What went wrong with which values and what to do, for people.
    pub message: String,
    /// The field that the error is about.
    pub param: Option<String>,
    /// Seconds after which to try again, where more is known than the code's own.
    pub retry_after: Option<u32>,
}

impl ApiError {
    /// An error that no single field is to blame for.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: None, retry_after: None }
    }

    /// A value that is malformed or out of its range.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message).about(param)
    }

    /// There is no adapter of this name, or none that the client may know of: the two are not told apart.
    pub fn no_adapter(name: &AdapterName) -> Self {
        let message = format!("there is no adapter '{name}': GET /v1/adapters lists those that you can use");
        Self::new(ErrorCode::AdapterNotFound, message).about("adapter")
    }

    /// A fault of the server. Its cause belongs into the log, never to a client.
    pub fn internal() -> Self {
        let message = "the server failed on this request: its log has the cause under this request's id";
        Self::new(ErrorCode::Internal, message)
    }

    /// The same error, to be tried again after `wait`, in whole seconds.
    pub fn retry_in(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.retry_after = Some(u32::try_from(seconds).unwrap_or(u32::MAX));
        self
    }

    /// The same error, blamed on the field `param`.
    pub fn about(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        Self::invalid("adapter", error.to_string())
    }
}

impl From<SamplingError> for ApiError {
    fn from(error: SamplingError) -> Self {
        Self::invalid(error.param, error.to_string())
    }
}

impl From<Denied> for ApiError {
    fn from(error: Denied) -> Self {
        let code = match error {
            Denied::NoKey | Denied::NotBearer | Denied::UnknownKey => ErrorCode::Unauthorized,
            Denied::Scope { .. } => ErrorCode::Forbidden,
        };
        Self::new(code, error.to_string()).about("authorization")
    }
}

impl From<PriorityError> for ApiError {
    fn from(error: PriorityError) -> Self {
        Self::invalid("priority", error.to_string())
    }
}

impl From<QuotaError> for ApiError {
    fn from(error: QuotaError) -> Self {
        let api = match error {
            // No wait would help.
            QuotaError::TooManyTokens { .. } => Self::invalid("max_tokens", error.to_string()),
            _ => Self::new(ErrorCode::QuotaExceeded, error.to_string()),
        };
        match error.wait() {
            Some(wait) => api.retry_in(wait),
            None => api,
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let code = match error {
            SubmitError::Overloaded { .. } => ErrorCode::Overloaded,
            SubmitError::NeverFits { .. } | SubmitError::TooLong { .. } => ErrorCode::InputTooLong,
            SubmitError::Empty | SubmitError::Token { .. } => ErrorCode::InvalidRequest,
            SubmitError::Draining => ErrorCode::Draining,
            SubmitError::Stopped => ErrorCode::NotReady,
        };
        let api = Self::new(code, error.to_string());
        match error {
            SubmitError::Overloaded { retry_in, .. } => api.retry_in(retry_in),
            _ => api,
        }
    }
}

impl From<SequenceError> for ApiError {
    fn from(error: SequenceError) -> Self {
        let code = match error {
            SequenceError::DeadlineExceeded(_) => ErrorCode::DeadlineExceeded,
            SequenceError::Grammar(_) => ErrorCode::InvalidRequest,
            SequenceError::Draining => ErrorCode::Draining,
            SequenceError::Internal => ErrorCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl From<CatalogueError> for ApiError {
    fn from(error: CatalogueError) -> Self {
        use CatalogueError as E;
        let code = match &error {
            E::Unknown { name } => return Self::no_adapter(name),
            E::UnknownVersion { .. } | E::BrokenAlias { .. } => ErrorCode::AdapterNotFound,
            E::AmbiguousVersion { .. } => ErrorCode::InvalidRequest,
            E::AliasOfAlias(_) | E::OtherKind(..) | E::ReadOnly(_) | E::SharedOnly(_) | E::Aliased { .. } => {
                ErrorCode::Conflict
            }
            E::Store(StoreError::Lost(_) | StoreError::Full { .. }) => ErrorCode::Conflict,
            E::Precondition { .. } => ErrorCode::PreconditionFailed,
            E::Misfit(MisfitError::ModelName(_)) => ErrorCode::Conflict,
            E::Misfit(_) | E::Unsound(_) => ErrorCode::InvalidAdapter,
            E::Load(LoadError::TooLarge { .. } | LoadError::Crowded(_) | LoadError::PinsFull { .. }) => {
                ErrorCode::AdapterCapacity
            }
            E::NoStore => ErrorCode::Conflict,
            E::Store(store) if store.fault() == Some(StoreFault::Full) => {
                tracing::error!(%error, "adapters");
                let message =
                    "the adapter store is full, so nothing was changed: delete adapters, or have it enlarged";
                return Self::new(ErrorCode::AdapterCapacity, message).about("adapter");
            }
            // What the operator must see to, and a client can only try again. Paths and addresses are for the log.
            E::Load(LoadError::Failed { .. })
            | E::Unreadable { .. }
            | E::Store(_)
            | E::Open(_)
            | E::Root(_) => {
                tracing::error!(%error, "adapters");
                return Self::new(ErrorCode::NotReady, unavailable(&error)).about("adapter");
            }
            E::Panicked => return Self::internal(),
        };
        Self::new(code, error.to_string()).about("adapter")
    }
}

/// A gRPC code as its documents write it.
pub(super) fn canonical(code: Code) -> String {
    let mut words = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push('_');
        }
        words.push(letter.to_ascii_uppercase());
    }
    words
}

/// What a client is told of a fault that is the operator's to find.
fn unavailable(error: &CatalogueError) -> String {
    let what = match error {
        CatalogueError::Load(LoadError::Failed { name, .. }) | CatalogueError::Unreadable { name, .. } => {
            format!("adapter '{name}' can't be loaded now")
        }
        _ => "the adapter store does not answer".to_owned(),
    };
    format!(
        "{what}: adapters in memory are served, for this one try again later. The server's log has the cause"
    )
}
