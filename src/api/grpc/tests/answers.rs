//! What each rpc of `InferenceService` answers.

use tonic::Request;

use super::{
    super::proto::{
        ClassifyRequest, FinishReason, GenerateRequest, GenerateStreamRequest, GenerateStreamResponse,
        Inputs, OverLength, Sampling, ScoredToken, Timings, Token, TokenIds, TokenizeRequest, Usage,
        classify_request::{self, Normalize},
        generate_request::Prompt,
        generate_stream_response::{Delta, Event},
        tokenize_request,
    },
    kit::{Server, asking},
};
use crate::{
    api::http::tests::kit::{BAD, GOOD, Stage, say},
    domain::{GivenToken, TokenEvent},
};

fn inputs(fields: &[(&str, &str)]) -> Inputs {
    Inputs { fields: fields.iter().map(|&(name, text)| (name.into(), text.into())).collect() }
}

#[tokio::test]
async fn a_label_with_its_adapter_its_usage_and_its_times() {
    let server = Server::start().await;
    let asked = GenerateRequest {
        adapter: "sst2".into(),
        prompt: Some(Prompt::Inputs(inputs(&[("text", "a film")]))),
        ..GenerateRequest::default()
    };
    let mut request = Request::new(asked);
    request.metadata_mut().insert("x-request-id", "mine-1".parse().unwrap());
    let answer = server.inference().generate(request).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "mine-1");
    let answer = answer.into_inner();
    assert_eq!((answer.id.as_str(), answer.model.as_str()), ("mine-1", "tiny"));
    assert_eq!(answer.adapter.as_deref(), Some("sst2"));
    assert!(answer.adapter_version.unwrap().starts_with("sha256:"));
    let [choice] = &answer.choices[..] else { panic!("{:?}", answer.choices) };
    assert_eq!((choice.index, choice.text.as_str(), choice.label.as_deref()), (0, "good", Some("positive")));
    assert_eq!(choice.finish_reason(), FinishReason::Stop);
    assert!(choice.tokens.is_empty());
    let usage = Usage { prompt_tokens: 4, virtual_tokens: 2, completion_tokens: 1, cached_tokens: 0 };
    assert_eq!(answer.usage, Some(usage));
    let timings = Timings { queue_ms: 1.0, prefill_ms: 2.0, decode_ms: 4.0, total_ms: 7.0 };
    assert_eq!(answer.timings, Some(timings));
}

#[tokio::test]
async fn all_that_is_asked_reaches_the_engine() {
    let (send, seen) = std::sync::mpsc::channel();
    let server = Server::of(Stage::new(), move |arrival| {
        send.send(arrival.submission.clone()).unwrap();
        say(&arrival, &[(GOOD, "good")], "");
    });
    let asked = GenerateRequest {
        prompt: Some(Prompt::TokenIds(TokenIds { ids: vec![7, 6, 1] })),
        max_tokens: Some(9),
        min_tokens: 2,
        sampling: Some(Sampling {
            temperature: Some(0.5),
            top_k: Some(3),
            top_p: Some(0.75),
            min_p: Some(0.25),
            seed: Some(40),
            repetition_penalty: Some(1.5),
            presence_penalty: Some(-1.0),
            frequency_penalty: Some(0.5),
            logprobs: Some(2),
            ..Sampling::default()
        }),
        stop: vec!["film".into()],
        n: Some(2),
        priority: -3,
        user: "someone".into(),
        ..GenerateRequest::default()
    };
    let answer = server.await.inference().generate(asked).await.unwrap().into_inner();
    let first = seen.recv().unwrap();
    assert_eq!(first.tokens, [7, 6, 1]);
    assert_eq!((first.max_tokens, first.min_tokens, first.priority), (9, 2, -3));
    assert_eq!(first.stop, ["film"]);
    let (one, two) = (first.sampling, seen.recv().unwrap().sampling);
    assert_eq!((one.seed, two.seed, one.logprobs), (Some(40), Some(41), 2));
    let drawn = (one.temperature, one.top_k, one.top_p, one.min_p);
    assert_eq!(format!("{drawn:?}"), "(0.5, 3, 0.75, 0.25)");
    let penalties = (one.repetition_penalty, one.presence_penalty, one.frequency_penalty);
    assert_eq!(format!("{penalties:?}"), "(1.5, -1.0, 0.5)");
    assert_eq!(answer.adapter, None);
    assert_eq!(answer.choices.iter().map(|choice| choice.index).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(answer.usage.unwrap().completion_tokens, 2);
    let top = vec![
        ScoredToken { id: GOOD, text: "good".into(), logprob: -0.25 },
        ScoredToken { id: 1, text: "</s>".into(), logprob: -2.5 },
    ];
    let token = Token { id: Some(GOOD), text: "good".into(), logprob: Some(-0.25), top };
    assert_eq!(answer.choices[1].tokens, [token]);
}

/// The deltas of a stream, and what came after them.
async fn drained(
    mut stream: tonic::Streaming<GenerateStreamResponse>,
) -> (Vec<Delta>, Vec<GenerateStreamResponse>) {
    let (mut deltas, mut rest) = (Vec::new(), Vec::new());
    while let Some(message) = stream.message().await.unwrap() {
        match message.event {
            Some(Event::Delta(delta)) if rest.is_empty() => deltas.push(delta),
            _ => rest.push(message),
        }
    }
    (deltas, rest)
}

#[tokio::test]
async fn a_stream_says_each_piece_and_then_all_of_it() {
    let server = Server::of(Stage::new(), |a| say(&a, &[(GOOD, "good"), (BAD, "")], " film")).await;
    let asked = GenerateStreamRequest { request: Some(asking("a")) };
    let answer = server.inference().generate_stream(asked).await.unwrap();
    let id = answer.metadata().get("x-request-id").unwrap().to_str().unwrap().to_owned();
    let (deltas, rest) = drained(answer.into_inner()).await;
    let piece = |position, id, text: &str| Delta {
        index: 0,
        position,
        token: Some(Token { id, text: text.into(), ..Token::default() }),
    };
    assert_eq!(deltas, [piece(0, Some(GOOD), "good"), piece(1, Some(BAD), ""), piece(2, None, " film")]);
    let [GenerateStreamResponse { event: Some(Event::Response(whole)) }] = &rest[..] else {
        panic!("{rest:?}")
    };
    assert_eq!((whole.id.as_str(), whole.choices[0].text.as_str()), (id.as_str(), "good film"));
    assert_eq!(whole.usage.unwrap().completion_tokens, 2);
}

/// Gives token t log-probability -t / 8, and half as much behind a prompt without content, which is unknown words.
async fn scorer() -> Server {
    Server::of(Stage::new(), |arrival| {
        let blank = arrival.submission.tokens.contains(&2);
        for &id in &arrival.submission.given {
            let logprob = -(id as f32) / if blank { 16.0 } else { 8.0 };
            let _ = arrival.events.send(TokenEvent::Given(GivenToken { id, logprob, top: Vec::new() }));
        }
        say(&arrival, &[], "");
    })
    .await
}

#[tokio::test]
async fn labels_are_scored_plain_by_length_and_calibrated() {
    let server = scorer().await;
    let asked = ClassifyRequest {
        adapter: "sst2".into(),
        prompt: Some(classify_request::Prompt::Inputs(inputs(&[("text", "a film")]))),
        ..ClassifyRequest::default()
    };
    let answer = server.inference().classify(asked.clone()).await.unwrap().into_inner();
    let scores: Vec<_> =
        answer.scores.iter().map(|s| (s.label.as_str(), s.text.as_str(), s.logprob)).collect();
    assert_eq!(scores, [("negative", "bad", -0.625), ("positive", "good", -0.5)]);
    let total: f64 = answer.scores.iter().map(|score| score.probability).sum();
    assert!((total - 1.0).abs() < 1e-12, "{total}");
    assert_eq!((answer.label.as_str(), answer.adapter.as_deref()), ("positive", Some("sst2")));
    assert_eq!(answer.usage.unwrap().prompt_tokens, 4);
    let calibrated = ClassifyRequest { calibrate: true, ..asked };
    let answer = server.inference().classify(calibrated).await.unwrap().into_inner();
    assert_eq!(answer.scores.iter().map(|s| s.logprob).collect::<Vec<_>>(), [-0.3125, -0.25]);
    let by_length = ClassifyRequest {
        prompt: Some(classify_request::Prompt::TokenIds(TokenIds { ids: vec![6, 1] })),
        labels: vec!["good film".into(), "bad".into()],
        normalize: Normalize::Length.into(),
        ..ClassifyRequest::default()
    };
    let answer = server.inference().classify(by_length).await.unwrap().into_inner();
    // good, film and the end token are 3, 6 and 1; bad and the end token 4 and 1.
    let scores: Vec<_> = answer.scores.iter().map(|s| (s.label.as_str(), s.logprob)).collect();
    assert_eq!(scores, [("good film", -10.0 / 24.0), ("bad", -5.0 / 16.0)]);
    assert_eq!((answer.label.as_str(), answer.adapter), ("bad", None));
}

#[tokio::test]
async fn tokens_are_shown_with_their_pieces() {
    let server = Server::start().await;
    let asked = TokenizeRequest {
        adapter: "sst2".into(),
        prompt: Some(tokenize_request::Prompt::Inputs(inputs(&[("text", "a film")]))),
    };
    let answer = server.inference().tokenize(asked).await.unwrap().into_inner();
    assert_eq!(answer.ids, [5, 7, 6, 1]);
    assert_eq!(answer.pieces, ["sentence:", "a", "film", "</s>"]);
    let asked = TokenizeRequest {
        adapter: String::new(),
        prompt: Some(tokenize_request::Prompt::Text("bad".into())),
    };
    assert_eq!(server.inference().tokenize(asked).await.unwrap().into_inner().ids, [BAD, 1]);
}

#[tokio::test]
async fn a_long_prompt_is_cut_where_that_is_asked() {
    let (send, seen) = std::sync::mpsc::channel();
    let server = Server::of(Stage::new(), move |arrival| {
        send.send(arrival.submission.tokens.clone()).unwrap();
        say(&arrival, &[], "");
    })
    .await;
    let long = ["a", "film"].repeat(10).join(" ");
    for (cut, first) in [(OverLength::Left, 6), (OverLength::Right, 7)] {
        let asked = GenerateRequest { truncate: cut.into(), ..asking(&long) };
        server.inference().generate(asked).await.unwrap();
        let tokens = seen.recv().unwrap();
        assert_eq!((tokens.len(), tokens[0], tokens[11]), (12, first, 1), "{cut:?}");
    }
}
