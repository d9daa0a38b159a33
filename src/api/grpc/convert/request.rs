use std::{collections::BTreeMap, time::Duration};

use crate::{
    api::{
        ApiError, DEFAULT_MAX_TOKENS, bounds, grammar,
        grpc::proto::{
            ClassifyRequest as ClassifyMessage, GenerateRequest as GenerateMessage,
            Grammar as GrammarMessage, Inputs, OverLength as OverLengthField, Sampling,
            TokenizeRequest as TokenizeMessage,
            classify_request::{Normalize as NormalizeField, Prompt as ClassifyPrompt},
            generate_request::Prompt as GeneratePrompt,
            grammar::Form,
            tokenize_request::Prompt as TokenizePrompt,
        },
    },
    domain::{
        AdapterRef, ClassifyRequest, GenerateRequest, Grammar, Normalize, OverLength, Prompt, RawSampling,
        SamplingParams, TenantId,
    },
};

/// What a tenant asks to be generated within `timeout`.
pub(in crate::api::grpc) fn generate_request(
    message: GenerateMessage,
    tenant: TenantId,
    timeout: Option<Duration>,
) -> Result<GenerateRequest, ApiError> {
    let prompt = match message.prompt {
        None => Err(no_prompt()),
        Some(GeneratePrompt::Text(text)) => bounds::text(text, "text"),
        Some(GeneratePrompt::TokenIds(tokens)) => Ok(Prompt::Ids(tokens.ids)),
        Some(GeneratePrompt::Inputs(inputs)) => fields(inputs),
    };
    Ok(GenerateRequest {
        tenant,
        adapter: reference(&message.adapter)?,
        prompts: vec![prompt?],
        max_tokens: bounds::max_tokens(message.max_tokens)?,
        usual_tokens: Some(DEFAULT_MAX_TOKENS),
        scores_prompts: false,
        grammar: message.grammar.map(held_to).transpose()?.flatten(),
        min_tokens: message.min_tokens,
        sampling: sampling(message.sampling.unwrap_or_default())?,
        stop: bounds::stop(message.stop)?,
        n: bounds::choices(message.n)?,
        truncate: over_length(message.truncate)?,
        priority: message.priority,
        timeout,
    })
}

/// What a tenant asks to be scored within `timeout`.
pub(in crate::api::grpc) fn classify_request(
    message: ClassifyMessage,
    tenant: TenantId,
    timeout: Option<Duration>,
) -> Result<ClassifyRequest, ApiError> {
    let prompt = match message.prompt {
        None => Err(no_prompt()),
        Some(ClassifyPrompt::Text(text)) => bounds::text(text, "text"),
        Some(ClassifyPrompt::TokenIds(tokens)) => Ok(Prompt::Ids(tokens.ids)),
        Some(ClassifyPrompt::Inputs(inputs)) => fields(inputs),
    };
    let normalize = NormalizeField::try_from(message.normalize);
    Ok(ClassifyRequest {
        tenant,
        adapter: reference(&message.adapter)?,
        prompts: vec![prompt?],
        labels: Some(message.labels).filter(|labels| !labels.is_empty()),
        normalize: match normalize.map_err(|_| unknown("normalize", message.normalize))? {
            NormalizeField::Unspecified | NormalizeField::None => Normalize::None,
            NormalizeField::Length => Normalize::Length,
        },
        calibrate: message.calibrate,
        truncate: over_length(message.truncate)?,
        priority: message.priority,
        timeout,
    })
}

/// The adapter and the text or the fields to be cut.
pub(in crate::api::grpc) fn tokenize_request(
    message: TokenizeMessage,
) -> Result<(Option<AdapterRef>, Prompt), ApiError> {
    let prompt = match message.prompt {
        None => Err(no_prompt()),
        Some(TokenizePrompt::Text(text)) => bounds::text(text, "text"),
        Some(TokenizePrompt::Inputs(inputs)) => fields(inputs),
    };
    Ok((reference(&message.adapter)?, prompt?))
}

/// The adapter that a request names; nothing is the bare model.
fn reference(adapter: &str) -> Result<Option<AdapterRef>, ApiError> {
    if adapter.is_empty() { Ok(None) } else { Ok(Some(adapter.parse()?)) }
}

fn no_prompt() -> ApiError {
    ApiError::invalid("prompt", "prompt is missing: send text, token_ids or inputs")
}

fn fields(inputs: Inputs) -> Result<Prompt, ApiError> {
    bounds::inputs(inputs.fields.into_iter().collect::<BTreeMap<_, _>>())
}

fn sampling(sent: Sampling) -> Result<SamplingParams, ApiError> {
    let default = RawSampling::default();
    let logprobs = sent.logprobs.unwrap_or(default.logprobs.into());
    let raw = RawSampling {
        temperature: sent.temperature.unwrap_or(default.temperature),
        top_k: sent.top_k.unwrap_or(default.top_k),
        top_p: sent.top_p.unwrap_or(default.top_p),
        min_p: sent.min_p.unwrap_or(default.min_p),
        repetition_penalty: sent.repetition_penalty.unwrap_or(default.repetition_penalty),
        presence_penalty: sent.presence_penalty.unwrap_or(default.presence_penalty),
        frequency_penalty: sent.frequency_penalty.unwrap_or(default.frequency_penalty),
        logit_bias: bounds::logit_bias(sent.logit_bias.len(), "sampling.logit_bias")
            .map(|()| sent.logit_bias.into_iter().collect())?,
        seed: sent.seed,
        // More than a byte holds is over the limit all the same.
        logprobs: u8::try_from(logprobs).unwrap_or(u8::MAX),
    };
    Ok(SamplingParams::new(raw)?)
}

/// What an answer must be. An empty message asks for nothing.
fn held_to(message: GrammarMessage) -> Result<Option<Grammar>, ApiError> {
    match message.form {
        None | Some(Form::JsonObject(false)) => Ok(None),
        Some(Form::JsonObject(true)) => Ok(Some(Grammar::JsonObject)),
        Some(Form::JsonSchema(text)) => grammar::schema(&text, "grammar.json_schema").map(Some),
        Some(Form::Regex(regex)) => grammar::pattern(&regex, "grammar.regex").map(Some),
        Some(Form::Choice(choices)) => grammar::choices(choices.texts, "grammar.choice").map(Some),
    }
}

fn over_length(sent: i32) -> Result<Option<OverLength>, ApiError> {
    match OverLengthField::try_from(sent).map_err(|_| unknown("truncate", sent))? {
        OverLengthField::Unspecified => Ok(None),
        OverLengthField::Error => Ok(Some(OverLength::Error)),
        OverLengthField::Left => Ok(Some(OverLength::Left)),
        OverLengthField::Right => Ok(Some(OverLength::Right)),
    }
}

/// A number that its enum has no name for: a newer client, which must not be taken at less than its word.
pub(in crate::api::grpc) fn unknown(param: &str, found: i32) -> ApiError {
    ApiError::invalid(
        param,
        format!("{param} is {found}, which this server does not know: see proto/dept/v1"),
    )
}
