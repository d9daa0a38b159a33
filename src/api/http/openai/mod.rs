//! The routes that OpenAI's clients call. `model` names an adapter or the backbone; everything else runs as on the native
//! routes. `docs/openai.md` says what is honoured, ignored and different.

mod chat;
mod completion;
mod errors;
mod fields;
mod forms;
mod ignored;
mod logprobs;
pub(super) mod models;
mod stream;
mod writer;

use std::sync::Arc;

use axum::{
    Extension, Json as Answer,
    extract::State,
    response::{IntoResponse, Response},
};

pub(super) use chat::ChatBody;
pub(super) use completion::CompletionBody;
use fields::Delivery;
pub(super) use forms::{ChatChunk, ChatCompletion, ChatEvent, Completion, CompletionEvent};
use ignored::Body;
use stream::{ChatStream, TextStream};
use writer::{Head, Writer};

use super::{Door, stream::respond};
use crate::{
    api::{
        Accepted, ApiError, collect,
        frame::{account::Account, aside_unless, request_id::RequestId},
    },
    domain::{GenerateRequest, Prompt},
    tenancy::Principal,
    tokenizer::Tokenizer,
};

/// What a body asks for, checked.
struct Ask {
    model: String,
    request: GenerateRequest,
    delivery: Delivery,
    form: Form,
}

/// The form of the answer.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// A text, behind its prompt or not, with log-probabilities or not.
    Text { echo: bool, logprobs: Option<u8> },
    /// A message.
    Chat {
        logprobs: Option<u8>,
        /// Whether the client calls the length `max_completion_tokens`.
        completion_tokens: bool,
    },
}

impl Form {
    /// Alternatives to show; `None` shows no log-probabilities.
    fn logprobs(self) -> Option<u8> {
        match self {
            Self::Text { logprobs, .. } | Self::Chat { logprobs, .. } => logprobs,
        }
    }
}

/// What a request is about, beside its body.
struct Caller {
    door: Door,
    id: String,
    account: Arc<Account>,
    principal: Principal,
}

/// Continues texts, as OpenAI's completions do.
///
/// Unknown fields are ignored and named in the `dept-ignored` header; a known field that can't be honoured is a 400.
#[utoipa::path(
    post, path = "/v1/completions", tag = "openai", request_body = CompletionBody,
    responses(
        (status = 200, description = "The texts, whole or as a stream of chunks",
         headers(("dept-ignored" = Option<String>, description = "The fields of the body that were ignored")),
         content((Completion = "application/json"), (CompletionEvent = "text/event-stream"))),
        super::openapi::GenerateFailures,
    )
)]
pub(super) async fn completions(
    State(door): State<Door>,
    Extension(RequestId(id)): Extension<RequestId>,
    Extension(account): Extension<Arc<Account>>,
    principal: Principal,
    Body(body, ignored): Body<CompletionBody>,
) -> Result<Response, ApiError> {
    let mut response = Caller { door, id, account, principal }.answer(body.try_into()?).await?;
    ignored.tell(&mut response);
    Ok(response)
}

/// Answers a conversation, as OpenAI's chat completions do.
///
/// The conversation is written down by the model's own chat template; an encoder-decoder model without one reads what the user
/// said last. Unknown fields are ignored and named in the `dept-ignored` header; a known field that can't be honoured is a 400.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "openai", request_body = ChatBody,
    responses(
        (status = 200, description = "The answer, whole or as a stream of chunks",
         headers(("dept-ignored" = Option<String>, description = "The fields of the body that were ignored")),
         content((ChatCompletion = "application/json"), (ChatEvent = "text/event-stream"))),
        super::openapi::GenerateFailures,
    )
)]
pub(super) async fn chat_completions(
    State(door): State<Door>,
    Extension(RequestId(id)): Extension<RequestId>,
    Extension(account): Extension<Arc<Account>>,
    principal: Principal,
    Body(body, ignored): Body<ChatBody>,
) -> Result<Response, ApiError> {
    let mut response = Caller { door, id, account, principal }.answer(body.try_into()?).await?;
    ignored.tell(&mut response);
    Ok(response)
}

impl Caller {
    /// Runs what is asked for and answers in its form.
    async fn answer(self, ask: Ask) -> Result<Response, ApiError> {
        let Self { door, id, account, principal } = self;
        let Ask { model, request, delivery, form } = ask;
        if let Some(trace) = account.trace() {
            let streams = matches!(delivery, Delivery::Stream { .. });
            trace.generates(form.operation(), models::known_as(&model), &request, streams);
        }
        let adapter = models::resolve(&door.service, &principal, &model, account.trace()).await?;
        let request = GenerateRequest { tenant: principal.tenant().id.clone(), ..request };
        let tokenizer = door.service.tokenizer.clone();
        let (n, service) = (request.n as usize, Arc::clone(&door.service));
        let running = aside_unless(request.is_light(), move || {
            let echoes = echoes(form, &request.prompts, &service.tokenizer);
            Ok((service.generate(&principal, &request, adapter)?, request.prompts.len(), echoes))
        });
        let (accepted, prompts, echoes) = running.await.map_err(|error| form.told(error))?;
        let Accepted { model: profile, adapter, prompts: scored, events, gathering, .. } =
            accepted.traced(&account);
        let head = Head::new(id, model, (&profile, adapter.as_ref()));
        let writer = Writer { head, form, n, tokenizer, prompts: scored, echoes };
        let Delivery::Stream { usage: include_usage } = delivery else {
            let results = collect(events, gathering).await?;
            return Ok(match form {
                Form::Text { .. } => Answer(writer.completion(results)).into_response(),
                Form::Chat { .. } => Answer(writer.chat(results)).into_response(),
            });
        };
        let ping = door.options.ping_interval;
        Ok(match form {
            Form::Text { .. } => {
                let script = TextStream { writer, include_usage, offsets: vec![None; prompts * n] };
                respond(script, events, gathering, account, ping)
            }
            Form::Chat { .. } => {
                respond(ChatStream { writer, include_usage }, events, gathering, account, ping)
            }
        })
    }
}

impl Form {
    /// What it is in a trace.
    fn operation(self) -> &'static str {
        match self {
            Self::Text { .. } => "text_completion",
            Self::Chat { .. } => "chat",
        }
    }

    /// A failure in the words that the client uses.
    fn told(self, error: ApiError) -> ApiError {
        match self {
            Self::Chat { completion_tokens: true, .. } => errors::in_chat_words(error),
            _ => error,
        }
    }
}

/// What is put in front of the texts, by prompt: the prompt as it was written, or what its tokens say.
fn echoes(form: Form, prompts: &[Prompt], tokenizer: &Tokenizer) -> Vec<String> {
    let echo = |prompt: &Prompt| match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Ids(ids) => tokenizer.decode(ids),
        // Completions have no other prompts.
        Prompt::Inputs(_) | Prompt::Chat(_) => String::new(),
    };
    match form {
        Form::Text { echo: true, .. } => prompts.iter().map(echo).collect(),
        _ => Vec::new(),
    }
}
