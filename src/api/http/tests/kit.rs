//! A server whose engine is a script: no model, no sockets.

use std::{
    fs,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, Request, StatusCode, header},
    response::Response,
};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{
    adapter::{AdapterWeights, BackboneShape, Card, Catalogue, Generation, LowRank, Manifest, Matrix, Task},
    api::{
        Readiness, Service, State,
        http::{Hosts, HttpOptions, public},
    },
    domain::{
        Completion, ContextWindow, FinishReason, GeneratedToken, ModelKind, ModelProfile, ScoredToken,
        SequenceError, Timings, TokenEvent, Usage,
    },
    engine::{Arrival, Command, EngineHandle, QueueLimits},
    grammar::Grammars,
    telemetry::Metrics,
    tenancy::Gate,
    tokenizer::{ChatTemplate, Tokenizer},
};

pub const GOOD: u32 = 3;
pub const BAD: u32 = 4;
pub const WORDS: [&str; 8] = ["<pad>", "</s>", "<unk>", "good", "bad", "sentence:", "film", "a"];
pub const MAX_ROWS: usize = 12;
pub const MAX_NEW: usize = 64;
pub const QUEUE: usize = 4;

/// A server and the inbox of its engine.
pub struct Stage {
    pub service: Service,
    pub inbox: mpsc::Receiver<Command>,
    pub options: HttpOptions,
    pub gate: Arc<Gate>,
}

impl Stage {
    pub fn new() -> Self {
        Self::of(ModelKind::Seq2Seq, ContextWindow::Apart { prompt_rows: MAX_ROWS, new_tokens: MAX_NEW })
    }

    /// With a decoder-only model.
    pub fn causal() -> Self {
        Self::of(ModelKind::Causal, ContextWindow::Shared { rows: MAX_NEW })
    }

    /// With a model that has this chat template.
    pub fn chatting(mut self, template: &str) -> Self {
        let template = ChatTemplate::new(template, Vec::new());
        self.service.tokenizer = self.service.tokenizer.with_chat_template(template.map(Some));
        self
    }

    fn of(kind: ModelKind, context: ContextWindow) -> Self {
        let model = ModelProfile {
            name: "tiny".into(),
            fingerprint: "0".repeat(64),
            kind,
            hidden: 4,
            vocab_size: WORDS.len(),
            eos: Some(1),
            context,
        };
        let (engine, inbox) =
            EngineHandle::channel(Arc::new(model), QueueLimits { sequences: QUEUE, tokens: usize::MAX });
        let readiness = Readiness::default();
        readiness.set(State::Ready);
        let service = Service {
            engines: vec![engine],
            catalogue: catalogue(),
            tokenizer: tokenizer(),
            grammars: Grammars::new(tokenizer(), WORDS.len(), vec![1]),
            metrics: Arc::default(),
            readiness,
            max_sequences: QUEUE,
            logs_texts: false,
        };
        let options = HttpOptions::new(Hosts::of(([127, 0, 0, 1], 8080).into()));
        Self { service, inbox, options, gate: Arc::new(Gate::open(i32::MAX)) }
    }

    /// The routes, with an engine that does `script` with every sequence.
    pub fn with_engine(self, script: impl Fn(Arrival) + Send + 'static) -> Router {
        let (service, gate, options) = self.parts(script);
        public(service, gate, options)
    }

    /// What a door is made of, with an engine that does `script` with every sequence.
    pub fn parts(self, script: impl Fn(Arrival) + Send + 'static) -> (Arc<Service>, Arc<Gate>, HttpOptions) {
        let Self { service, inbox, options, gate } = self;
        let load = Arc::clone(service.engines[0].load());
        thread::spawn(move || {
            while let Ok(Command::Submit(arrival)) = inbox.recv() {
                load.leave(1, arrival.submission.cost());
                script(*arrival);
            }
        });
        (Arc::new(service), gate, options)
    }

    /// The routes and the engine's inbox, which nobody reads yet.
    pub fn quiet(self) -> (Router, mpsc::Receiver<Command>) {
        (public(Arc::new(self.service), self.gate, self.options), self.inbox)
    }

    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.service.metrics)
    }
}

/// The routes with an engine that always says `good`.
pub fn server() -> Router {
    Stage::new().with_engine(|arrival| say(&arrival, &[(GOOD, "good")], ""))
}

/// Says these tokens and a held back `tail`, then ends regularly.
pub fn say(arrival: &Arrival, tokens: &[(u32, &str)], tail: &str) {
    conclude(arrival, tokens, (tail, None, FinishReason::Stop));
}

/// Says these tokens, then ends for this reason.
pub fn end(arrival: &Arrival, tokens: &[(u32, &str)], reason: FinishReason) {
    conclude(arrival, tokens, ("", None, reason));
}

/// Says these tokens, then the end token.
pub fn end_with(arrival: &Arrival, tokens: &[(u32, &str)], last: GeneratedToken) {
    conclude(arrival, tokens, ("", Some(last), FinishReason::Stop));
}

fn conclude(
    arrival: &Arrival,
    tokens: &[(u32, &str)],
    (tail, end, reason): (&str, Option<GeneratedToken>, FinishReason),
) {
    for &(id, text) in tokens {
        let _ = arrival.events.send(TokenEvent::Token(token(arrival, id, text)));
    }
    let usage = Usage {
        prompt_tokens: arrival.submission.tokens.len(),
        virtual_tokens: arrival.submission.adapter.as_ref().map_or(0, |a| a.weights().prompt_length()),
        completion_tokens: tokens.len(),
        cached_tokens: 0,
    };
    let end = Completion { reason, tail: tail.into(), end, usage, timings: timings() };
    let _ = arrival.events.send(TokenEvent::Finished(end));
}

/// Where the time of every sequence is said to have gone.
fn timings() -> Timings {
    let ms = Duration::from_millis;
    Timings { queue: ms(1), prefill: ms(2), decode: ms(4) }
}

pub fn fail(arrival: &Arrival, error: SequenceError) {
    let _ = arrival.events.send(TokenEvent::Failed(error, timings()));
}

/// A token with the log-probabilities that the request asked for.
pub fn token(arrival: &Arrival, id: u32, text: &str) -> GeneratedToken {
    let wanted = arrival.submission.sampling.logprobs as usize;
    let top = [ScoredToken { id, logprob: -0.25 }, ScoredToken { id: 1, logprob: -2.5 }];
    let top = top.into_iter().take(wanted).collect();
    GeneratedToken { id, text: text.into(), logprob: (wanted > 0).then_some(-0.25), top }
}

fn tokenizer() -> Tokenizer {
    let vocab: serde_json::Map<_, _> =
        WORDS.iter().enumerate().map(|(id, word)| ((*word).into(), id.into())).collect();
    let end = json!({"id": 1, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
                     "normalized": false, "special": true});
    let text =
        json!([{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}]);
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [end], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": null,
        "post_processor": {"type": "TemplateProcessing", "single": text, "pair": text,
                           "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    fs::write(&path, json.to_string()).unwrap();
    Tokenizer::from_file(&path).unwrap()
}

/// `sst2` (DePT: m 2, s 6, with a card), `cut` (the same, cutting on the right), `pt` (m 3, no s).
fn catalogue() -> Catalogue {
    let shape = BackboneShape { hidden: 4, task: Task::Seq2SeqLm, name: "tiny".into(), fingerprint: None };
    let card = "description = \"d\"\ntemplate = \"sentence: {text}\"\nmax_tokens = 3\n\
                labels = { good = \"positive\", bad = \"negative\" }\n";
    let adapters = vec![
        adapter("sst2", 2, true, card),
        adapter("cut", 2, true, "over_length = \"right\""),
        adapter("pt", 3, false, ""),
    ];
    Catalogue::fixed(shape, adapters)
}

fn adapter(name: &str, m: usize, dept: bool, card: &str) -> Generation {
    let (s, r, d) = (6, 1, 4);
    let mut config = json!({"peft_type": "PROMPT_TUNING", "task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": m,
                            "token_dim": d, "num_transformer_submodules": 1});
    if dept {
        config["peft_type"] = "PROMPT_TUNING_LORA".into();
        config["r"] = r.into();
        config["max_length"] = s.into();
        config["lora_alpha"] = 8.into();
    }
    let zeros = |rows: usize, cols: usize| Matrix::new(rows, cols, vec![0.0; rows * cols]).unwrap();
    let low_rank = dept.then(|| LowRank::new(zeros(s, r), zeros(r, d), 8.0).unwrap());
    let weights = AdapterWeights::new(zeros(m, d), low_rank).unwrap();
    let manifest = Manifest::parse(config.to_string().as_bytes()).unwrap();
    let card = Card::parse(card.as_bytes()).unwrap();
    Generation::new(name.parse().unwrap(), manifest, weights, card, SystemTime::UNIX_EPOCH)
}

/// A response, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub async fn of(response: Response) -> Self {
        let (head, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Self { status: head.status, headers: head.headers, body }
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The error, its shape checked.
    #[track_caller]
    pub fn error(&self) -> (u16, String, Value, String) {
        let json = self.json();
        let error = json["error"].as_object().unwrap();
        let keys: Vec<_> = error.keys().map(String::as_str).collect();
        assert_eq!(keys, ["message", "type", "param", "code", "request_id"]);
        assert_eq!(error["request_id"].as_str(), self.header("x-request-id"));
        assert_eq!(self.header("content-type"), Some("application/json"));
        let text = |key: &str| error[key].as_str().unwrap().to_owned();
        (self.status.as_u16(), text("code"), error["param"].clone(), text("message"))
    }
}

pub fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    request.body(body.into()).unwrap()
}

pub fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

pub async fn ask(app: &Router, request: Request<Body>) -> Answer {
    Answer::of(app.clone().oneshot(request).await.unwrap()).await
}

/// Posts `body` to `/v1/generate`.
pub async fn generate(app: &Router, body: Value) -> Answer {
    ask(app, post("/v1/generate", body.to_string())).await
}
