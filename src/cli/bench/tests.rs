use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use clap::Parser;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    client::{Answer, Usage},
    goodput::Slo,
    sse::SseParser,
    workload::{Mix, Pick, Prompts},
    *,
};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn args(line: &str) -> Result<Args, clap::Error> {
    Line::try_parse_from(std::iter::once("bench").chain(line.split_whitespace())).map(|line| line.args)
}

#[test]
fn the_command_line_is_as_documented() {
    let found =
        args("--server http://h:1 --adapters a,b,- --concurrency 4 --requests 10 --json x.json").unwrap();
    assert_eq!(
        (found.adapters, found.server.as_str()),
        (vec!["a".into(), "b".into(), "-".into()], "http://h:1/")
    );
    let found =
        args("--pick zipf --zipf-exponent 1.5 --output-tokens 2-8 --slo-ttft 50ms --slo-itl 2ms").unwrap();
    assert_eq!(
        (found.pick, found.zipf_exponent, found.output_tokens.clone()),
        (Pick::Zipf, 1.5, Some(2..=8))
    );
    let ms = Duration::from_millis;
    assert_eq!(found.slo(), Slo { ttft: Some(ms(50)), itl: Some(ms(2)), e2e: None });
    assert_eq!(args("--output-tokens 3").unwrap().output_tokens, Some(3..=3));
    let found = args("--rate 2.5 --duration 90s --pick random --stream false --prompt-tokens 64").unwrap();
    assert_eq!(found.pick, Pick::Uniform);
    assert_eq!((found.rate, found.duration, found.stream), (Some(2.5), Some(Duration::from_secs(90)), false));
    assert_eq!(args("--server http://h/dept").unwrap().server.as_str(), "http://h/dept/");
    assert_eq!(args("--adapters -,a").unwrap().adapters, ["-", "a"]);
    for wrong in [
        "--rate 0",
        "--rate inf",
        "--rate 1 --concurrency 2",
        "--concurrency 0",
        "--adapters Upper",
        "--server ftp://h",
        "--server h:80",
        "--prompt-tokens 3 --prompt-file x",
        "--prompt-tokens 3 --prompt-lengths x",
        "--prompt-file x --prompt-lengths x",
        "--output-tokens 0",
        "--output-tokens 8-2",
        "--output-tokens 2-",
        "--output-tokens 2 --max-tokens 3",
        "--zipf-exponent -1",
        "--zipf-exponent NaN",
        "--slo-ttft soon",
    ] {
        assert!(args(wrong).is_err(), "{wrong}");
    }
}

fn events(parser: &mut SseParser, chunk: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    parser.push(chunk, |data| found.push(data.to_owned())).unwrap();
    found
}

#[test]
fn events_are_read_as_the_standard_says() {
    for (stream, expected) in [
        ("data: a\n\n", vec!["a"]),
        ("data:a\r\n\r\ndata: b\r\r", vec!["a", "b"]),
        (": ping\n\ndata: a\n\n", vec!["a"]),
        ("event: x\ndata: a\nid: 7\ndata:  b\n\n", vec!["a\n b"]),
        ("data\ndata\n\n", vec!["\n"]),
        ("data: held back", vec![]),
        ("database: a\n\n", vec![]),
        ("\n\n\n", vec![]),
    ] {
        assert_eq!(events(&mut SseParser::default(), stream.as_bytes()), expected, "{stream:?}");
    }
}

#[test]
fn an_endless_event_is_given_up() {
    let mut parser = SseParser::default();
    let piece = vec![b'x'; 1 << 20];
    let given_up = (0..64).position(|_| parser.push(&piece, |_| panic!("no event")).is_err());
    assert_eq!(given_up, Some(16));
}

proptest! {
    #[test]
    fn cuts_change_nothing(
        text in "(data: [ab]{0,3}|:c|[ab])?((\n|\r|\r\n)(data:[ab]{0,3})?){0,12}",
        cuts in prop::collection::vec(0usize..80, 0..6),
    ) {
        let whole = events(&mut SseParser::default(), text.as_bytes());
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let mut parser = SseParser::default();
        let pieces = cuts.windows(2).flat_map(|cut| events(&mut parser, &text.as_bytes()[cut[0]..cut[1]]));
        prop_assert_eq!(pieces.collect::<Vec<_>>(), whole);
    }
}

#[test]
fn arrivals_are_poisson_and_seeded() {
    let due: Vec<Duration> = Arrivals::new(50.0, 7).take(20_000).collect();
    assert_eq!(due[..100], Arrivals::new(50.0, 7).take(100).collect::<Vec<_>>());
    assert_ne!(due[0], Arrivals::new(50.0, 8).next().unwrap());
    let gaps: Vec<f64> = due.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
    assert!((mean * 50.0 - 1.0).abs() < 0.03, "the mean gap is 1 / rate, found {mean}");
    // An exponential's deviation equals its mean.
    assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "found {} and {mean}", variance.sqrt());
}

fn workload(adapters: &[&str], pick: Pick) -> Workload {
    let prompts = Prompts::Texts(["one", "two", "three", "four"].map(str::to_owned).to_vec());
    let adapters = adapters.iter().map(|&name| (name != "-").then(|| name.to_owned())).collect();
    Workload {
        prompts,
        mix: Mix::new(adapters, pick, 1.0),
        output: Output::Between(1..=4),
        stream: true,
        seed: 1,
    }
}

fn bodies(workload: &Workload, count: usize) -> Vec<Value> {
    (0..count).map(|number| serde_json::from_str(&workload.body(number)).unwrap()).collect()
}

#[test]
fn every_adapter_meets_every_prompt() {
    let mut pairs: Vec<String> = bodies(&workload(&["a", "-"], Pick::RoundRobin), 8)
        .iter()
        .map(|body| format!("{} {}", body["adapter"], body["prompt"]))
        .collect();
    pairs.sort();
    pairs.dedup();
    assert_eq!(pairs.len(), 8, "{pairs:?}");
}

#[test]
fn random_mixes_have_their_shares() {
    let adapters = ["a", "b", "-", "d"];
    let shares = |pick| {
        let bodies = bodies(&workload(&adapters, pick), 10_000);
        let share = |name: &str| {
            let name = if name == "-" { Value::Null } else { json!(name) };
            bodies.iter().filter(|body| body["adapter"] == name).count() as f64 / 1e4
        };
        adapters.map(share)
    };
    // 1 + 1/2 + 1/3 + 1/4 is 25/12. The deviation of a share is below 0.005.
    for (pick, expected) in [(Pick::Uniform, [0.25; 4]), (Pick::Zipf, [0.48, 0.24, 0.16, 0.12])] {
        let found = shares(pick);
        let near = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 0.02);
        assert!(near, "{pick:?}: {found:?}");
    }
    let flat = Workload {
        mix: Mix::new(vec![None, Some("a".into())], Pick::Zipf, 0.0),
        ..workload(&["-"], Pick::Zipf)
    };
    let named = bodies(&flat, 1000).iter().filter(|body| body["adapter"] == "a").count();
    assert!((440..560).contains(&named), "an exponent of 0 is uniform: {named} of 1000");
}

#[test]
fn answers_have_a_drawn_length() {
    let drawn = Workload { output: Output::Drawn(2..=8), ..workload(&["-"], Pick::RoundRobin) };
    let mut counts = [0; 9];
    for body in bodies(&drawn, 7000) {
        assert_eq!(body["min_tokens"], body["max_tokens"]);
        counts[body["max_tokens"].as_u64().unwrap() as usize] += 1;
    }
    let lengths = |workload: &Workload| {
        bodies(workload, 50).iter().map(|body| body["max_tokens"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let zipf = Workload { output: Output::Drawn(2..=8), ..workload(&["a", "b"], Pick::Zipf) };
    assert_eq!(lengths(&zipf), lengths(&drawn), "whatever the adapters");
    assert_eq!(counts[..2], [0, 0]);
    assert!(counts[2..].iter().all(|count| (850..1150).contains(count)), "{counts:?}");
}

#[test]
fn lengths_come_from_a_file_in_turn() {
    let file = |text: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    };
    let lengths = file("3\n\n 17 \r\n1\n");
    let prompts = Prompts::from_lengths(lengths.path()).unwrap();
    let found = bodies(&Workload { prompts, ..workload(&["a"], Pick::RoundRobin) }, 5);
    let found: Vec<usize> = found.iter().map(|body| body["prompt"].as_array().unwrap().len()).collect();
    assert_eq!(found, [3, 17, 1, 3, 17]);
    for (text, expected) in [
        ("", "is empty"),
        ("12\nmany\n", "line 2: 'many' is not a number"),
        ("0\n", "line 1: '0'"),
        ("-3\n", "line 1: '-3'"),
        ("99999999999999999999\n", "line 1"),
    ] {
        let error = Prompts::from_lengths(file(text).path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn synthetic_prompts_are_ids_and_seeded() {
    let synthetic = Workload { prompts: Prompts::Synthetic(vec![5]), ..workload(&["-"], Pick::RoundRobin) };
    let found = bodies(&synthetic, 2);
    assert_eq!(found, bodies(&synthetic, 2));
    assert_eq!(found[0]["prompt"].as_array().unwrap().len(), 5);
    assert_ne!(found[0]["prompt"], found[1]["prompt"]);
    assert_eq!(found[0]["adapter"], Value::Null);
    let other = bodies(&Workload { seed: 2, ..synthetic }, 2);
    assert!(found.iter().all(|body| !other.contains(body)), "another seed's run shares no prompt");
}

fn sample(due: u64, sent: u64, tokens: &[u64], ended: u64) -> Sample {
    let ms = Duration::from_millis;
    let usage = Usage { prompt_tokens: 10, virtual_tokens: 20, completion_tokens: tokens.len() };
    let answer = Answer { tokens: tokens.iter().map(|&at| ms(at)).collect(), usage };
    Sample { due: ms(due), sent: ms(sent), ended: ms(ended), outcome: Ok(answer) }
}

fn setting(load: Load) -> Setting {
    let (server, adapters) = ("http://h/".into(), vec!["a".into()]);
    Setting { server, load, adapters, pick: Pick::RoundRobin, max_tokens: 4, stream: true, seed: 0 }
}

#[test]
fn latencies_count_from_when_a_request_was_due() {
    let mut samples = vec![sample(0, 0, &[5, 7, 8], 9), sample(10, 100, &[400], 500)];
    samples.push(Sample { outcome: Err("429 overloaded".into()), ..samples[0].clone() });
    let report = Report::new(setting(Load::Open { rate: 2.0 }), Slo::default(), &samples);
    assert_eq!(
        (report.requests.ok, report.requests.failures(), report.requests.failed["429 overloaded"]),
        (2, 1, 1)
    );
    assert_eq!((report.duration_s, report.requests_per_s, report.output_tokens_per_s), (0.5, 4.0, 8.0));
    assert_eq!(report.input_tokens_per_s, 120.0);
    let (ttft, itl) = (report.ttft_ms.unwrap(), report.itl_ms.unwrap());
    assert_eq!((ttft.p50, ttft.max, itl.count, itl.p50, itl.max), (5.0, 390.0, 2, 1.0, 2.0));
    assert_eq!((report.e2e_ms.unwrap().max, report.late_ms.unwrap().max), (490.0, 90.0));
    let table = report.table();
    for line in [
        "load              open loop, 2 a second (Poisson, seed 0)\n",
        "requests          2 ok, 1 failed\n",
        "                  1 x 429 overloaded\n",
        "output tokens/s   8.0\n",
        "input tokens/s    120.0  (20 of prompts, 40 soft-prompt rows)\n",
        "between tokens              1.50      1.00      2.00      2.00      2.00\n",
        "sent late                  30.00",
    ] {
        assert!(table.contains(line), "{line} is not in\n{table}");
    }
}

#[test]
fn goodput_counts_who_kept_every_promise() {
    let ms = Duration::from_millis;
    let mut samples = vec![
        sample(0, 0, &[5, 7, 9], 10),       // first token 5, 2 between tokens, whole 10
        sample(100, 100, &[140, 141], 150), // 40, 1, 50
        sample(200, 200, &[205, 245], 250), // 5, 40, 50
        sample(300, 390, &[395], 400),      // due before it was sent: 95, none, 100
        sample(400, 400, &[], 500),         // no token at all: as late as its end
    ];
    samples.push(Sample { outcome: Err("429 overloaded".into()), ..samples[0].clone() });
    let kept = |ttft: Option<u64>, itl: Option<u64>, e2e: Option<u64>| {
        let slo = Slo { ttft: ttft.map(ms), itl: itl.map(ms), e2e: e2e.map(ms) };
        Report::new(setting(Load::Closed { concurrency: 1 }), slo, &samples)
            .goodput
            .map(|found| found.requests)
    };
    assert_eq!(kept(None, None, None), None);
    assert_eq!([kept(Some(5), None, None), kept(Some(4), None, None)], [Some(2), Some(0)]);
    assert_eq!([kept(None, Some(2), None), kept(None, Some(40), None)], [Some(4), Some(5)]);
    assert_eq!([kept(None, None, Some(50)), kept(None, None, Some(1000))], [Some(3), Some(5)]);
    assert_eq!(kept(Some(40), Some(2), Some(50)), Some(2), "all of them at once");

    let slo = Slo { ttft: Some(ms(40)), itl: None, e2e: Some(ms(50)) };
    let report = Report::new(setting(Load::Closed { concurrency: 1 }), slo, &samples);
    let goodput = report.goodput.unwrap();
    assert_eq!((goodput.requests, goodput.share, goodput.requests_per_s), (3, 0.5, 6.0));
    let line =
        "goodput           6.0 requests/s: 3 (50.0 %) with first token <= 40 ms, whole request <= 50 ms\n";
    assert!(report.table().contains(line), "{}", report.table());
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(
        (&json["goodput"]["slo_ttft_ms"], &json["goodput"]["slo_itl_ms"]),
        (&json!(40.0), &Value::Null)
    );
}

#[test]
fn nothing_measured_is_no_number() {
    let report = Report::new(setting(Load::Closed { concurrency: 1 }), Slo::default(), &[]);
    assert_eq!((report.requests_per_s, report.ttft_ms, report.late_ms), (0.0, None, None));
    assert!(!report.table().contains("whole request"));
}

/// A server that answers by adapter: well, with an error, or badly.
async fn answer(State(seen): State<Arc<Mutex<Vec<Value>>>>, body: String) -> Response {
    let body: Value = serde_json::from_str(&body).unwrap();
    seen.lock().unwrap().push(body.clone());
    let whole = json!({
        "text": "yes indeed", "finish_reason": "stop",
        "usage": {"prompt_tokens": 7, "virtual_tokens": 3, "completion_tokens": 2, "cached_tokens": 0},
    });
    let token =
        |id: Value| json!({"index": 0, "position": 0, "token": {"id": id, "text": "yes"}}).to_string();
    let tokens = vec![token(json!(1)), token(json!(2)), token(Value::Null)];
    let good = [tokens.clone(), vec![whole.to_string(), "[DONE]".into()]].concat();
    let events = match body["adapter"].as_str() {
        Some("full") => {
            let error = json!({"error": {"message": "…", "code": "overloaded"}});
            return (StatusCode::TOO_MANY_REQUESTS, error.to_string()).into_response();
        }
        Some("late") => [tokens, vec![json!({"error": {"code": "deadline_exceeded"}}).to_string()]].concat(),
        Some("cut") => tokens,
        Some("odd") => vec!["nonsense".into()],
        _ => good,
    };
    if body["stream"] == false {
        return ([(header::CONTENT_TYPE, "application/json")], whole.to_string()).into_response();
    }
    let stream: String = events.iter().map(|data| format!("data: {data}\n\n")).collect();
    ([(header::CONTENT_TYPE, "text/event-stream")], format!(": ping\n\n{stream}")).into_response()
}

type Seen = Arc<Mutex<Vec<Value>>>;

async fn stand_in() -> (SocketAddr, Seen) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Seen::default());
    let router = Router::new()
        .route("/health/ready", get(|| async { "ok" }))
        .route("/v1/generate", post(answer))
        .with_state(seen.clone());
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    (address, seen)
}

async fn measured(flags: &str) -> (Report, Vec<Value>) {
    let (address, seen) = stand_in().await;
    let report = measure(&args(&format!("--server http://{address} {flags}")).unwrap()).await.unwrap();
    let seen = seen.lock().unwrap().clone();
    (report, seen)
}

#[tokio::test]
async fn a_closed_loop_sends_as_many_as_it_was_told() {
    let (report, seen) =
        measured("--adapters a,- --concurrency 3 --requests 10 --warmup 4 --max-tokens 2 --min-tokens 1")
            .await;
    assert_eq!((report.requests.ok, report.requests.failures(), seen.len()), (10, 0, 14));
    assert_eq!((report.prompt_tokens, report.virtual_tokens, report.completion_tokens), (70, 30, 20));
    assert_eq!((report.ttft_ms.unwrap().count, report.itl_ms.unwrap().count), (10, 10));
    assert!(report.duration_s > 0.0 && report.late_ms.is_none());
    assert_eq!(
        (&seen[4]["max_tokens"], &seen[4]["min_tokens"], &seen[4]["stream"]),
        (&json!(2), &json!(1), &json!(true))
    );
    assert_eq!(seen[4..].iter().filter(|body| body["adapter"] == "a").count(), 5);
}

#[tokio::test]
async fn an_open_loop_sends_when_requests_are_due() {
    let (report, seen) = measured("--rate 2000 --requests 40 --warmup 0").await;
    assert_eq!((report.requests.ok, seen.len()), (40, 40));
    assert_eq!(report.late_ms.unwrap().count, 40);
    let last = Arrivals::new(2000.0, 0).nth(39).unwrap().as_secs_f64();
    assert!(report.duration_s >= last, "{} is not before {last}", report.duration_s);
}

#[tokio::test]
async fn a_duration_ends_a_run() {
    let (report, _) = measured("--rate 500 --duration 50ms --warmup 0").await;
    let due = Arrivals::new(500.0, 0).take_while(|due| *due < Duration::from_millis(50)).count();
    assert_eq!(report.requests.ok, due);
    let (report, _) = measured("--duration 20ms --warmup 0").await;
    assert!(report.requests.ok > 0 && report.duration_s >= 0.02);
}

#[tokio::test]
async fn failures_are_counted_by_name() {
    let (report, _) = measured("--adapters full,late,cut,odd,- --requests 10 --warmup 0").await;
    let failed: Vec<_> = report.requests.failed.iter().map(|(name, &count)| (name.as_str(), count)).collect();
    let expected = [
        ("429 overloaded", 2),
        ("broken stream", 2),
        ("malformed answer", 2),
        ("stream deadline_exceeded", 2),
    ];
    assert_eq!((failed.as_slice(), report.requests.ok), (&expected[..], 2));
}

#[tokio::test]
async fn without_streaming_only_whole_requests_are_timed() {
    let (report, _) = measured("--stream false --requests 3 --warmup 0").await;
    assert_eq!((report.requests.ok, report.completion_tokens), (3, 6));
    assert!(report.ttft_ms.is_none() && report.itl_ms.is_none() && report.e2e_ms.is_some());
    let error = measure(&args("--stream false --slo-ttft 1s").unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("need --stream true"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_at_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = measure(&args(&format!("--server http://{address}")).unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("start `dept serve`"), "{error}");
}

#[tokio::test]
async fn json_is_written_and_a_run_without_success_fails() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (report, _) = measured("--requests 2 --warmup 0").await;
    let mut table = Vec::new();
    publish(&report, &mut table, Some(file.path())).unwrap();
    assert_eq!(table, report.table().as_bytes());
    let json: Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
    let found = (&json["requests"]["ok"], &json["loop"], &json["concurrency"]);
    assert_eq!(found, (&json!(2), &json!("closed"), &json!(8)));
    assert!(json["ttft_ms"]["p99"].is_f64() && json["late_ms"].is_null());
    let (report, _) = measured("--adapters full --requests 2 --warmup 0").await;
    let error = publish(&report, &mut table, None).unwrap_err().to_string();
    assert_eq!(error, "none of 2 requests succeeded");
}
