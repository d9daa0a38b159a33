//! The fields that say what a text must be.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    api::{
        ApiError,
        grammar::{choices, pattern, schema},
    },
    domain::Grammar,
};

/// `response_format`, in OpenAI's form: any text, a JSON object, or JSON that a schema describes.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"type": "json_object"}))]
pub struct ResponseFormat {
    /// What the text is.
    #[serde(rename = "type")]
    pub kind: FormatKind,
    /// The schema, where `type` is `json_schema`.
    pub json_schema: Option<JsonSchemaFormat>,
}

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FormatKind {
    /// Any text.
    Text,
    /// A JSON object, whatever it holds.
    JsonObject,
    /// JSON that `json_schema.schema` describes.
    JsonSchema,
}

/// A schema with what OpenAI's clients send beside it.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonSchemaFormat {
    /// The schema's name. Taken, and not needed.
    pub name: Option<String>,
    /// What it is for. Taken, and not shown to the model.
    pub description: Option<String>,
    /// The JSON schema (draft 4 to 2020-12): an object, or true or false.
    #[schema(value_type = Object)]
    pub schema: Option<Value>,
    /// The schema is always followed to the letter, whatever this says.
    pub strict: Option<bool>,
}

/// The grammar of a request, which says it in one way at most.
pub(in crate::api::http) fn grammar(
    format: Option<ResponseFormat>,
    regex: Option<&str>,
    choice: Option<Vec<String>>,
) -> Result<Option<Grammar>, ApiError> {
    let format = format.map(formatted).transpose()?.flatten().map(|grammar| ("response_format", grammar));
    let regex = regex.map(|regex| pattern(regex, "regex")).transpose()?.map(|grammar| ("regex", grammar));
    let choice = choice.map(|texts| choices(texts, "choice")).transpose()?.map(|grammar| ("choice", grammar));
    let mut said = [format, regex, choice].into_iter().flatten();
    match (said.next(), said.next()) {
        (Some((first, _)), Some((second, _))) => {
            let message = format!("{first} and {second} exclude each other: send one");
            Err(ApiError::invalid(second, message))
        }
        (one, _) => Ok(one.map(|(_, grammar)| grammar)),
    }
}

fn formatted(format: ResponseFormat) -> Result<Option<Grammar>, ApiError> {
    match (format.kind, format.json_schema) {
        (FormatKind::Text, None) => Ok(None),
        (FormatKind::JsonObject, None) => Ok(Some(Grammar::JsonObject)),
        (FormatKind::JsonSchema, Some(JsonSchemaFormat { schema: Some(found), .. })) => {
            schema(&found.to_string(), "response_format.json_schema.schema").map(Some)
        }
        (FormatKind::JsonSchema, _) => {
            let param = "response_format.json_schema.schema";
            Err(ApiError::invalid(param, format!("{param} is missing: send the schema, or another type")))
        }
        (FormatKind::Text | FormatKind::JsonObject, Some(_)) => {
            let message = "json_schema goes with type json_schema: leave it out, or change the type";
            Err(ApiError::invalid("response_format.json_schema", message))
        }
    }
}
