//! The JSON forms. They are checked here and never leave this folder.

mod adapter;
mod classify;
mod error;
pub(super) mod grammar;
mod logit_bias;
pub(super) mod request;
mod response;
mod tokens;
mod writer;

pub use adapter::{
    AdapterList, AdapterObject, AliasBody, AliasObject, LoadLoraBody, PatchAdapterBody, UnloadLoraBody,
    VersionList,
};
pub use classify::{ClassifyBody, ClassifyResponse};
pub use error::{ErrorBody, ErrorObject};
pub use grammar::{FormatKind, JsonSchemaFormat, ResponseFormat};
pub use logit_bias::LogitBiasField;
pub use request::{GenerateBody, PromptField, Truncate};
pub use response::{
    ChoiceObject, GenerateResponse, Outcome, Output, ResultObject, ServerSentEvent, StreamEvent, StreamToken,
    TimingsObject, TokenObject, TopToken, UsageObject, packed_json,
};
pub use tokens::{DetokenizeBody, DetokenizeResponse, TokenizeBody, TokenizeResponse};
pub use writer::Writer;
