use serde_json::{Value, json};

use super::kit::{Answer, MAX_ROWS, Stage, ask, post, say};
use crate::{
    domain::{GivenToken, Scoring, TokenEvent},
    engine::Arrival,
};

/// Gives token t log-probability -t / 8, and half as much behind a prompt without content, which is unknown words.
fn score(arrival: &Arrival) {
    let submission = &arrival.submission;
    assert_eq!((submission.scoring, submission.max_tokens), (Scoring::Given, 0));
    let blank = submission.tokens.contains(&2);
    for &id in &submission.given {
        let logprob = -(id as f32) / if blank { 16.0 } else { 8.0 };
        let _ = arrival.events.send(TokenEvent::Given(GivenToken { id, logprob, top: Vec::new() }));
    }
    say(arrival, &[], "");
}

async fn classify(body: Value) -> Answer {
    let app = Stage::new().with_engine(|arrival| score(&arrival));
    ask(&app, post("/v1/classify", body.to_string())).await
}

/// What a result says of its labels: name, text, score and share.
fn scores(result: &Value) -> Vec<(String, String, f64, f64)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let number = |value: &Value| (value.as_f64().unwrap() * 1e6).round() / 1e6;
    let scores = result["scores"].as_array().unwrap().iter();
    scores
        .map(|s| (text(&s["label"]), text(&s["text"]), number(&s["logprob"]), number(&s["probability"])))
        .collect()
}

fn row(label: &str, text: &str, logprob: f64, probability: f64) -> (String, String, f64, f64) {
    (label.into(), text.into(), logprob, probability)
}

#[tokio::test]
async fn the_cards_labels_are_scored_with_their_end_token() {
    let json = classify(json!({"adapter": "sst2", "inputs": {"text": "a film"}})).await.json();
    // good is token 3 and bad 4, the end token 1; the card's labels come in the order of their texts.
    let share =
        |logprob: f64| ((logprob.exp() / ((-0.5_f64).exp() + (-0.625_f64).exp())) * 1e6).round() / 1e6;
    assert_eq!(
        scores(&json),
        [row("negative", "bad", -0.625, share(-0.625)), row("positive", "good", -0.5, share(-0.5))]
    );
    assert_eq!((&json["label"], &json["adapter"]), (&json!("positive"), &json!("sst2")));
    let usage = json!({"prompt_tokens": 4, "virtual_tokens": 2, "completion_tokens": 0, "cached_tokens": 0});
    assert_eq!(json["usage"], usage);
    let order: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(order, ["id", "model", "adapter", "adapter_version", "label", "scores", "usage", "timings"]);
}

#[tokio::test]
async fn labels_of_several_tokens_and_several_prompts() {
    let body = json!({"prompts": ["film", "a film"], "labels": ["good film", "bad"], "normalize": "length"});
    let json = classify(body).await.json();
    let results = json["results"].as_array().unwrap();
    assert_eq!((results.len(), &json["adapter"]), (2, &Value::Null));
    for result in results {
        // (3 + 6 + 1) / 8 over three tokens, (4 + 1) / 8 over two.
        let found: Vec<f64> = scores(result).iter().map(|score| score.2).collect();
        assert_eq!((found, &result["label"]), (vec![-0.416667, -0.3125], &json!("bad")));
    }
    assert_eq!(json["usage"]["prompt_tokens"], 2 + 3);
}

#[tokio::test]
async fn calibration_takes_off_what_an_empty_prompt_scores() {
    let body = json!({"prompt": "film", "labels": ["good", "bad"], "calibrate": true});
    let json = classify(body).await.json();
    let found: Vec<f64> = scores(&json).iter().map(|score| score.2).collect();
    assert_eq!(found, [-0.25, -0.3125], "half of what it was");
    let body = json!({"adapter": "sst2", "inputs": {"text": "film"}, "calibrate": true});
    let json = classify(body).await.json();
    assert_eq!(json["label"], "positive");
}

#[tokio::test]
async fn what_cannot_be_classified_is_refused_by_name() {
    let long = ["a"; MAX_ROWS].join(" ");
    let many: Vec<String> = (0..257).map(|label| format!("good {label}")).collect();
    let cases = [
        (json!({"prompt": "a"}), 400, "labels", "labels are missing"),
        (json!({"prompt": "a", "adapter": "pt"}), 400, "labels", "adapter 'pt' has no labels on its card"),
        (json!({"prompt": "a", "labels": ["good"]}), 400, "labels", "there are 1 labels: send 2 to 256"),
        (json!({"prompt": "a", "labels": many}), 400, "labels", "there are 257 labels"),
        (json!({"prompt": "a", "labels": ["good", " "]}), 400, "labels[1]", "the label is empty"),
        (json!({"prompt": "a", "labels": ["good", "bad", "good"]}), 400, "labels[2]", "is labels[0] too"),
        (json!({"labels": ["good", "bad"]}), 400, "prompt", "prompt is missing"),
        (json!({"prompt": "", "labels": ["good", "bad"]}), 400, "prompt", "prompt is empty"),
        (
            json!({"prompt": "a", "prompts": ["a"], "labels": ["good", "bad"]}),
            400,
            "prompts",
            "exclude each other",
        ),
        (json!({"prompts": ["a", "a", "a"], "labels": ["good", "bad"]}), 400, "labels", "are 6 sequences"),
        (
            json!({"prompt": "a", "labels": ["good", "bad"], "normalize": "most"}),
            400,
            "normalize",
            "unknown variant",
        ),
        (json!({"prompt": "a", "label": ["good", "bad"]}), 400, "label", "unknown field"),
        (json!({"prompt": long, "labels": ["good", "bad"]}), 422, "prompt", "the prompt has 13 tokens"),
        (json!({"prompt": "a", "adapter": "none", "labels": ["good", "bad"]}), 404, "adapter", "none"),
    ];
    for (body, status, param, message) in cases {
        let answer = classify(body.clone()).await;
        let (found, _, blamed, said) = answer.error();
        assert_eq!((found, blamed), (status, json!(param)), "{body}: {said}");
        assert!(said.contains(message), "{body}: {said}");
    }
}
