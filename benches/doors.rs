//! What HTTP and gRPC cost beside the engine: a real server, one request at a time over each door in turn.
//!
//! *Door* is the server's own clock, from a request's head to its answer's end as its log tells it, minus what the response says
//! the engine took (`timings.total_ms`). *Wire* is what passes between a request's first byte and its answer's last, minus the
//! same, seen by a client that only moves bytes: the door with the kernel's sockets and the wake-ups of both sides. What no server
//! on this machine is spared of it is what an *echo* takes in the same turns: a thread that reads as many bytes, computes for
//! `BUSY` and answers as many. *Added* is the median on the wire without that of the echo. *With a client*
//! is what a real one (reqwest, tonic) waits for minus the same, its own work on the same cores included; a call that does nothing
//! (liveness), asked for in the same turn, tells how much of that any call takes.
//!
//! `--small` runs less.

#[path = "support/rounds.rs"]
mod rounds;
#[path = "support/wire.rs"]
mod wire;

use std::{
    error::Error,
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use dept::api::grpc::proto::{
    GenerateRequest, GenerateResponse, Inputs, generate_request::Prompt,
    inference_service_client::InferenceServiceClient,
};
use prost::Message;
use rounds::median;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::runtime::Builder;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

type Outcome<T> = Result<T, Box<dyn Error>>;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SENTENCE: &str = "a warm , funny and moving film .";
const GENERATE: &str = "/dept.v1.InferenceService/Generate";
const WARM_UP: usize = 50;
/// About what the engine takes for the request, and the bytes of its answer over HTTP.
const BUSY: Duration = Duration::from_millis(5);
const ANSWER: usize = 575;

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

/// The request, over either door.
fn body() -> Value {
    json!({"adapter": "sst2", "inputs": {"sentence": SENTENCE}})
}

fn message() -> GenerateRequest {
    let fields = [("sentence".to_owned(), SENTENCE.to_owned())].into();
    GenerateRequest {
        adapter: "sst2".into(),
        prompt: Some(Prompt::Inputs(Inputs { fields })),
        ..GenerateRequest::default()
    }
}

fn http_on_the_wire(wire: &mut wire::Http1, request: &[u8]) -> Outcome<Taken> {
    let (answer, took) = wire.ask(request)?;
    let answer: Value = serde_json::from_slice(&answer)?;
    let engine = answer["timings"]["total_ms"].as_f64().ok_or("a response without its times")?;
    Ok(Taken { client: ms(took), engine })
}

fn grpc_on_the_wire(wire: &mut wire::Grpc, message: &[u8]) -> Outcome<Taken> {
    let (answer, took) = wire.ask(message)?;
    let answer = GenerateResponse::decode(&answer[..])?;
    Ok(Taken { client: ms(took), engine: answer.timings.ok_or("a response without its times")?.total_ms })
}

async fn over_http(client: &reqwest::Client, address: &str) -> Outcome<Taken> {
    let body = body();
    let began = Instant::now();
    let response = client.post(format!("http://{address}/v1/generate")).json(&body).send().await?;
    let answer: Value = response.error_for_status()?.json().await?;
    let client = ms(began.elapsed());
    let engine = answer["timings"]["total_ms"].as_f64().ok_or("a response without its times")?;
    Ok(Taken { client, engine })
}

async fn over_grpc(client: &mut InferenceServiceClient<Channel>) -> Outcome<Taken> {
    let request = message();
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

/// What was measured of a door; the first of each are the warm-up.
#[derive(Default)]
struct Door {
    /// With a real client.
    taken: Vec<Taken>,
    /// On the wire.
    wire: Vec<Taken>,
    /// Calls that do nothing, in milliseconds.
    nothing: Vec<f64>,
}

fn row(door: &str, Door { taken, wire, nothing }: Door, clocked: &[f64], echo: f64) {
    // A turn is a call of the real client and then one on the wire.
    let turns = taken.iter().zip(&wire).flat_map(|(taken, wire)| [taken, wire]);
    let inside = clocked.iter().zip(turns).skip(2 * WARM_UP).map(|(all, one)| all - one.engine).collect();
    let (taken, wire, nothing) = (&taken[WARM_UP..], &wire[WARM_UP..], nothing[WARM_UP..].to_vec());
    let beside = |taken: &[Taken]| taken.iter().map(Taken::beside).collect::<Vec<_>>();
    let mut sorted = beside(wire);
    sorted.sort_by(f64::total_cmp);
    let p99 = sorted[sorted.len() * 99 / 100];
    let engine = median(taken.iter().map(|one| one.engine).collect());
    let [inside, wire, client, nothing] = [inside, beside(wire), beside(taken), nothing].map(median);
    let added = wire - echo;
    println!(
        "| {door} | {engine:.3} | {inside:.3} | {wire:.3} | {echo:.3} | {added:.3} | {p99:.3} | {client:.3} | {nothing:.3} |"
    );
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
        let mut http_wire = wire::Http1::connect(&door)?;
        let mut grpc_wire = wire::Grpc::connect(&address("grpc"), GENERATE)?;
        let (body, message) = (body().to_string(), message().encode_to_vec());
        let head = format!("POST /v1/generate HTTP/1.1\r\nhost: {door}\r\ncontent-type: application/json");
        let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let mut answer = [0; ANSWER];
        let mut echo = wire::Echo::connect(wire::echo(request.len(), BUSY, ANSWER)?)?;
        let mut echoes = Vec::new();
        let (mut by_http, mut by_grpc) = (Door::default(), Door::default());
        for _ in 0..WARM_UP + requests {
            by_http.taken.push(over_http(&http, &door).await?);
            by_grpc.taken.push(over_grpc(&mut grpc).await?);
            by_http.wire.push(http_on_the_wire(&mut http_wire, request.as_bytes())?);
            by_grpc.wire.push(grpc_on_the_wire(&mut grpc_wire, &message)?);
            echoes.push(ms(echo.ask(request.as_bytes(), &mut answer)? - BUSY));
            by_http.nothing.push(nothing_over_http(&http, &door).await?);
            by_grpc.nothing.push(nothing_over_grpc(&mut health).await?);
        }
        let echo = median(echoes.split_off(WARM_UP));
        println!(
            "| door | engine p50, ms | door | wire | echo | added | wire p99 | with a client p50 | a call that does nothing |"
        );
        println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
        row("HTTP", by_http, &server.clocked("/v1/generate", 2 * (WARM_UP + requests))?, echo);
        row("gRPC", by_grpc, &server.clocked(GENERATE, 2 * (WARM_UP + requests))?, echo);
        Ok(())
    })
}
