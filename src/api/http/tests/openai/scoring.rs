//! Prompts that are put in front of the answer, and scored.

use serde_json::{Value, json};

use super::{
    super::kit::{GOOD, Stage, end, end_with, server},
    chunks, complete,
};
use crate::{
    domain::{FinishReason, GeneratedToken, GivenToken, ScoredToken, Scoring, TokenEvent},
    engine::Arrival,
};

/// A decoder-only model's engine: scores what it is given, then says `good` unless nothing is wanted, then ends by itself.
fn score(arrival: &Arrival) {
    let asked = &arrival.submission;
    assert_eq!(asked.scoring, Scoring::Prompt);
    let top = |id: u32| {
        let all = [ScoredToken { id, logprob: -0.5 }, ScoredToken { id: 1, logprob: -3.0 }];
        all.into_iter().take(asked.sampling.logprobs.into()).collect()
    };
    for &id in &asked.tokens[1..] {
        let _ = arrival.events.send(TokenEvent::Given(GivenToken { id, logprob: -1.0, top: top(GOOD) }));
    }
    let said: &[(u32, &str)] = if asked.max_tokens > 0 { &[(GOOD, " good")] } else { &[] };
    end(arrival, said, FinishReason::Length);
}

fn choice(json: &Value) -> &Value {
    &json["choices"][0]
}

#[tokio::test]
async fn a_prompt_is_scored_in_front_of_the_answer() {
    let app = Stage::causal().with_engine(|arrival| score(&arrival));
    let body = json!({"model": "tiny", "prompt": "a film", "echo": true, "logprobs": 1, "max_tokens": 1});
    let json = complete(&app, body).await.json();
    assert_eq!(choice(&json)["text"], "a film good");
    let expected = json!({
        "tokens": ["a", "film", "</s>", "good"], "token_logprobs": [null, -1.0, -1.0, -0.25],
        "top_logprobs": [null, {"good": -0.5, "film": -1.0}, {"good": -0.5, "</s>": -1.0}, {"good": -0.25}],
        "text_offset": [0, 1, 6, 6],
    });
    assert_eq!(choice(&json)["logprobs"], expected);
}

#[tokio::test]
async fn a_prompt_is_scored_alone() {
    let app = Stage::causal().with_engine(|arrival| score(&arrival));
    let body =
        json!({"model": "tiny", "prompt": [[7, 6, 3], [6, 6]], "echo": true, "logprobs": 0, "max_tokens": 0});
    let json = complete(&app, body).await.json();
    assert_eq!(
        (&choice(&json)["text"], &choice(&json)["finish_reason"]),
        (&json!("a film good"), &json!("length"))
    );
    assert_eq!(choice(&json)["logprobs"]["top_logprobs"], json!([null, {"film": -1.0}, {"good": -1.0}]));
    assert_eq!(json["choices"][1]["logprobs"]["tokens"], json!(["film", "film"]));
    let usage = &json["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(5), &json!(0)));
    let plain = json!({"model": "tiny", "prompt": "a  film", "echo": true, "max_tokens": 0});
    let json = complete(&app, plain).await.json();
    assert_eq!(choice(&json)["text"], "a  film", "a text comes back as it was written");
    assert_eq!(choice(&json)["logprobs"], Value::Null);
}

#[tokio::test]
async fn a_stream_begins_with_the_prompt() {
    let app = Stage::causal().with_engine(|arrival| score(&arrival));
    let body = json!({"model": "tiny", "prompt": "a film", "echo": true, "logprobs": 1, "max_tokens": 1, "stream": true});
    let chunks = chunks(&complete(&app, body.clone()).await);
    assert_eq!(choice(&chunks[0])["text"], "a film good");
    assert_eq!(choice(&chunks[0])["logprobs"]["text_offset"], json!([0, 1, 6, 6]));
    assert_eq!((chunks.len(), &choice(&chunks[1])["finish_reason"]), (2, &json!("length")));
    let alone = super::with(body, json!({"max_tokens": 0}));
    let alone = super::chunks(&complete(&app, alone).await);
    assert_eq!((alone.len(), &choice(&alone[0])["text"]), (1, &json!("a film")));
    assert_eq!(choice(&alone[0])["logprobs"]["token_logprobs"], json!([null, -1.0, -1.0]));
}

#[tokio::test]
async fn the_end_token_has_its_place_among_the_log_probabilities() {
    let app = Stage::causal().with_engine(|arrival| {
        let last = GeneratedToken { id: 1, text: String::new(), logprob: Some(-0.125), top: Vec::new() };
        end_with(&arrival, &[(GOOD, "good")], last);
    });
    let body = json!({"model": "tiny", "prompt": "a", "logprobs": 1});
    let json = complete(&app, body.clone()).await.json();
    assert_eq!(choice(&json)["text"], "good");
    assert_eq!(choice(&json)["logprobs"]["tokens"], json!(["good", "</s>"]));
    assert_eq!(choice(&json)["logprobs"]["token_logprobs"], json!([-0.25, -0.125]));
    assert_eq!(choice(&json)["logprobs"]["text_offset"], json!([0, 4]));
    let chunks = chunks(&complete(&app, super::with(body, json!({"stream": true}))).await);
    let end = choice(chunks.last().unwrap());
    assert_eq!((&end["text"], &end["logprobs"]["tokens"]), (&json!(""), &json!(["</s>"])));
    assert_eq!(end["logprobs"]["text_offset"], json!([4]));
}

#[tokio::test]
async fn an_encoder_decoder_can_repeat_its_prompt_and_not_score_it() {
    let body = json!({"model": "tiny", "prompt": "a film", "echo": true});
    assert_eq!(choice(&complete(&server(), body).await.json())["text"], "a filmgood");
    for more in [json!({"logprobs": 1}), json!({"max_tokens": 0})] {
        let body = super::with(json!({"model": "tiny", "prompt": "a film", "echo": true}), more);
        let error = complete(&server(), body).await.error();
        assert_eq!((error.0, error.2.as_str()), (400, Some("echo")), "{}", error.3);
    }
}
