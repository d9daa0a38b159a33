//! What HTTP and gRPC cost beside the engine: a real server, one request at a time over each door in turn.
//!
//! *Door* is the server's own clock, from a request's head to its answer's end as its log tells it, minus what the response says
//! the engine took (`timings.total_ms`). *Door and client* is what the client waits for minus the same, its own work on the same
//! cores included; a call that does nothing (liveness), asked for in the same turn, tells how much of that any call takes.
//!
//! `--small` runs less.

#[path = "support/rounds.rs"]
mod rounds;

use std::{
    error::Error,
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use dept::api::grpc::proto::{
    GenerateRequest, Inputs, generate_request::Prompt, inference_service_client::InferenceServiceClient,
};
use rounds::median;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::runtime::Builder;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

type Outcome<T> = Result<T, Box<dyn Error>>;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SENTENCE: &str = "a warm , funny and moving film .";
const WARM_UP: usize = 50;

/// A server and its log; ends with the bench.
struct Server(Child, NamedTempFile);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server and returns its addresses.
fn start() -> Outcome<(Server, Value)> {
    let folder = tempfile::tempdir()?;
    let ports = folder.path().join("ports.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dept"));
    let doors = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    command
        .arg("serve")
        .args(doors)
        .args(["--prefix-cache", "false", "--log", "info", "--log-format", "json", "--port-file"])
        .arg(&ports);
    let log = NamedTempFile::new()?;
    command.env("DEPT_HOME", ROOT).stderr(Stdio::from(log.reopen()?));
    let mut server = Server(command.spawn()?, log);
    loop {
        // The file appears whole once the server is ready.
        if let Ok(text) = fs::read_to_string(&ports) {
            return Ok((server, serde_json::from_str(&text)?));
        }
        if let Some(status) = server.0.try_wait()? {
            return Err(format!("the server ended: {status}").into());
        }
        std::thread::yield_now();
    }
}

impl Server {
    /// Milliseconds that each request over `endpoint` took by the server's clock, in order; there are `count`.
    fn clocked(&self, endpoint: &str, count: usize) -> Outcome<Vec<f64>> {
        loop {
            // The last line is written behind the answer.
            let text = fs::read_to_string(self.1.path())?;
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let ours = lines.filter(|line| line["endpoint"] == endpoint);
            let times: Vec<f64> = ours.filter_map(|line| line["ms"].as_f64()).collect();
            if times.len() >= count {
                return Ok(times);
            }
            std::thread::yield_now();
        }
    }
}

/// What one request took: all of it, and the engine's part, in milliseconds.
#[derive(Clone, Copy)]
struct Taken {
    client: f64,
    engine: f64,
}

impl Taken {
    fn beside(&self) -> f64 {
        self.client - self.engine
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

async fn over_http(client: &reqwest::Client, address: &str) -> Outcome<Taken> {
    let body = json!({"adapter": "sst2", "inputs": {"sentence": SENTENCE}});
    let began = Instant::now();
    let response = client.post(format!("http://{address}/v1/generate")).json(&body).send().await?;
    let answer: Value = response.error_for_status()?.json().await?;
    let client = ms(began.elapsed());
    let engine = answer["timings"]["total_ms"].as_f64().ok_or("a response without its times")?;
    Ok(Taken { client, engine })
}

async fn over_grpc(client: &mut InferenceServiceClient<Channel>) -> Outcome<Taken> {
    let fields = [("sentence".to_owned(), SENTENCE.to_owned())].into();
    let request = GenerateRequest {
        adapter: "sst2".into(),
        prompt: Some(Prompt::Inputs(Inputs { fields })),
        ..GenerateRequest::default()
    };
    let began = Instant::now();
    let answer = client.generate(request).await?.into_inner();
    let client = ms(began.elapsed());
    Ok(Taken { client, engine: answer.timings.ok_or("a response without its times")?.total_ms })
}

async fn nothing_over_http(client: &reqwest::Client, address: &str) -> Outcome<f64> {
    let began = Instant::now();
    let response = client.get(format!("http://{address}/health/live")).send().await?;
    response.error_for_status()?.bytes().await?;
    Ok(ms(began.elapsed()))
}

async fn nothing_over_grpc(client: &mut HealthClient<Channel>) -> Outcome<f64> {
    let began = Instant::now();
    client.check(HealthCheckRequest::default()).await?;
    Ok(ms(began.elapsed()))
}

/// What was measured of a door.
#[derive(Default)]
struct Door {
    /// The first are the warm-up.
    taken: Vec<Taken>,
    /// Calls that do nothing, in milliseconds.
    nothing: Vec<f64>,
}

fn row(door: &str, Door { taken, nothing }: Door, clocked: &[f64]) {
    let inside = clocked.iter().zip(&taken).skip(WARM_UP).map(|(all, one)| all - one.engine).collect();
    let (taken, nothing) = (&taken[WARM_UP..], nothing[WARM_UP..].to_vec());
    let mut beside: Vec<f64> = taken.iter().map(Taken::beside).collect();
    beside.sort_by(f64::total_cmp);
    let p99 = beside[beside.len() * 99 / 100];
    let engine = median(taken.iter().map(|one| one.engine).collect());
    let (inside, beside, nothing) = (median(inside), median(beside), median(nothing));
    println!("| {door} | {engine:.3} | {inside:.3} | {beside:.3} | {p99:.3} | {nothing:.3} |");
}

fn main() -> Outcome<()> {
    let requests = if std::env::args().any(|flag| flag == "--small") { 100 } else { 2000 };
    let (server, addresses) = start()?;
    let address = |door: &str| addresses[door].as_str().unwrap_or_default().to_owned();
    // One whose TLS is not chosen yet can't be made, although nothing here speaks it.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (http, door) = (reqwest::Client::new(), address("http"));
        let channel = Endpoint::from_shared(format!("http://{}", address("grpc")))?.connect().await?;
        let mut grpc = InferenceServiceClient::new(channel.clone());
        let mut health = HealthClient::new(channel);
        let (mut by_http, mut by_grpc) = (Door::default(), Door::default());
        for _ in 0..WARM_UP + requests {
            by_http.taken.push(over_http(&http, &door).await?);
            by_grpc.taken.push(over_grpc(&mut grpc).await?);
            by_http.nothing.push(nothing_over_http(&http, &door).await?);
            by_grpc.nothing.push(nothing_over_grpc(&mut health).await?);
        }
        println!(
            "| door | engine p50, ms | door p50 | door and client p50 | p99 | a call that does nothing p50 |"
        );
        println!("| --- | --- | --- | --- | --- | --- |");
        row("HTTP", by_http, &server.clocked("/v1/generate", WARM_UP + requests)?);
        row("gRPC", by_grpc, &server.clocked("/dept.v1.InferenceService/Generate", WARM_UP + requests)?);
        Ok(())
    })
}
