//! What HTTP and gRPC cost beside the engine: a real server, one request at a time over each door in turn, and what the client
//! waits for minus what the response says the engine took (`timings.total_ms`). The client's own work counts with the door's.
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
use tokio::runtime::Builder;
use tonic::transport::{Channel, Endpoint};

type Outcome<T> = Result<T, Box<dyn Error>>;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SENTENCE: &str = "a warm , funny and moving film .";
const WARM_UP: usize = 50;

/// A server; ends with the bench.
struct Server(Child);

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
        .args(["--prefix-cache", "false", "--log", "warn", "--port-file"])
        .arg(&ports);
    let mut server = Server(command.env("DEPT_HOME", ROOT).stderr(Stdio::null()).spawn()?);
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

fn row(door: &str, taken: &[Taken]) {
    let mut beside: Vec<f64> = taken.iter().map(Taken::beside).collect();
    beside.sort_by(f64::total_cmp);
    let p99 = beside[beside.len() * 99 / 100];
    let engine = median(taken.iter().map(|one| one.engine).collect());
    println!("| {door} | {engine:.3} | {:.3} | {p99:.3} |", median(beside));
}

fn main() -> Outcome<()> {
    let requests = if std::env::args().any(|flag| flag == "--small") { 100 } else { 2000 };
    let (_server, addresses) = start()?;
    let address = |door: &str| addresses[door].as_str().unwrap_or_default().to_owned();
    // One whose TLS is not chosen yet can't be made, although nothing here speaks it.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (http, door) = (reqwest::Client::new(), address("http"));
        let mut grpc = InferenceServiceClient::new(
            Endpoint::from_shared(format!("http://{}", address("grpc")))?.connect().await?,
        );
        let (mut by_http, mut by_grpc) = (Vec::new(), Vec::new());
        for round in 0..WARM_UP + requests {
            let (one, other) = (over_http(&http, &door).await?, over_grpc(&mut grpc).await?);
            if round >= WARM_UP {
                by_http.push(one);
                by_grpc.push(other);
            }
        }
        println!("| door | engine p50, ms | door and client p50, ms | p99, ms |\n| --- | --- | --- | --- |");
        row("HTTP", &by_http);
        row("gRPC", &by_grpc);
        Ok(())
    })
}
