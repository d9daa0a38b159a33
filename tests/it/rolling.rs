//! Two servers behind a client that asks each in turn, as long as it says that it is ready: both are replaced under load, and
//! every request is answered, once.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::process::{Server, client};

const CLIENTS: usize = 6;

/// How long a server goes on after it has said that it is not ready; a balancer that looks all the time needs less.
const DELAY: &str = "3s";

/// One replica as a balancer knows it.
#[derive(Clone)]
struct Backend {
    http: String,
    admin: String,
    ready: Arc<AtomicBool>,
}

/// The replicas, in turn.
#[derive(Default)]
struct Balancer {
    backends: Mutex<Vec<Backend>>,
    next: AtomicUsize,
    stopped: AtomicBool,
    sent: AtomicUsize,
}

impl Balancer {
    fn add(&self, server: &Server) {
        let backend =
            Backend { http: server.http.clone(), admin: server.admin.clone(), ready: Arc::default() };
        self.backends.lock().unwrap().push(backend);
    }

    fn remove(&self, admin: &str) {
        self.backends.lock().unwrap().retain(|backend| backend.admin != admin);
    }

    fn all(&self) -> Vec<Backend> {
        self.backends.lock().unwrap().clone()
    }

    fn ready(&self) -> usize {
        self.all().iter().filter(|backend| backend.ready.load(Ordering::SeqCst)).count()
    }

    /// Looks at every replica's readiness, over and over.
    async fn probe(&self) {
        let client = client();
        while !self.stopped.load(Ordering::SeqCst) {
            for backend in self.all() {
                let answer = client.get(format!("{}/health/ready", backend.admin)).send().await;
                let is_ready = answer.is_ok_and(|answer| answer.status() == 200);
                backend.ready.store(is_ready, Ordering::SeqCst);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The next replica that is ready.
    fn pick(&self) -> Option<Backend> {
        let all = self.all();
        let start = self.next.fetch_add(1, Ordering::SeqCst);
        let turn = (0..all.len()).map(|at| &all[(start + at) % all.len()]);
        turn.into_iter().find(|backend| backend.ready.load(Ordering::SeqCst)).cloned()
    }

    /// Asks without end; nothing is tried twice. Returns the ids of its requests.
    async fn ask(&self, who: usize) -> Vec<String> {
        let client = client();
        let mut ids = Vec::new();
        while !self.stopped.load(Ordering::SeqCst) {
            let Some(backend) = self.pick() else { panic!("no replica is ready") };
            let (id, streams) = (format!("{who}-{}", ids.len()), ids.len() % 2 == 0);
            let body = json!({"adapter": "sst2", "prompt": "sentence: a warm and funny film .",
                              "max_tokens": 24, "min_tokens": 24, "stream": streams});
            let sent =
                client.post(format!("{}/v1/generate", backend.http)).header("x-request-id", &id).json(&body);
            let answer = sent.send().await.unwrap_or_else(|error| panic!("{id}: {error:?}"));
            assert_eq!(answer.status(), 200, "{id}");
            let text = answer.text().await.unwrap_or_else(|error| panic!("{id} broke off: {error:?}"));
            assert!(text.contains(r#""completion_tokens":24"#), "{id}: {text}");
            assert!(!streams || text.ends_with("data: [DONE]\n\n"), "{id}: {text}");
            ids.push(id);
            self.sent.fetch_add(1, Ordering::SeqCst);
        }
        ids
    }

    /// Waits until so many more requests have been answered.
    async fn more(&self, count: usize) {
        let wanted = self.sent.load(Ordering::SeqCst) + count;
        while self.sent.load(Ordering::SeqCst) < wanted {
            tokio::task::yield_now().await;
        }
    }
}

async fn start() -> Server {
    let flags = ["--log-format", "json", "--drain-delay", DELAY, "--threads", "1"];
    tokio::task::spawn_blocking(move || Server::start(&flags)).await.unwrap()
}

/// How often each request ended well, by the logs.
fn ended(logs: &[PathBuf]) -> HashMap<String, usize> {
    let mut ended = HashMap::new();
    for log in logs {
        let text = std::fs::read_to_string(log).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        for line in
            lines.filter(|line| line["message"] == "request ended" && line["endpoint"] == "/v1/generate")
        {
            assert_eq!(line["outcome"], "ok", "{line}");
            *ended.entry(line["id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    ended
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_of_two_servers_are_replaced_under_load_and_no_request_is_lost() {
    let balancer = Arc::<Balancer>::default();
    let mut servers = vec![start().await, start().await];
    let mut logs: Vec<_> = servers.iter().map(Server::log_file).collect();
    servers.iter().for_each(|server| balancer.add(server));
    let probing = tokio::spawn({
        let balancer = Arc::clone(&balancer);
        async move { balancer.probe().await }
    });
    while balancer.ready() < 2 {
        tokio::task::yield_now().await;
    }
    let clients: Vec<_> = (0..CLIENTS)
        .map(|who| {
            let balancer = Arc::clone(&balancer);
            tokio::spawn(async move { balancer.ask(who).await })
        })
        .collect();
    balancer.more(4 * CLIENTS).await;
    for _ in 0..2 {
        let old = servers.remove(0);
        let admin = old.admin.clone();
        old.terminate();
        let code = tokio::task::spawn_blocking(move || old.wait().code()).await.unwrap();
        assert_eq!(code, Some(0));
        balancer.remove(&admin);
        let new = start().await;
        logs.push(new.log_file());
        balancer.add(&new);
        servers.push(new);
        while balancer.ready() < 2 {
            assert!(!probing.is_finished());
            tokio::task::yield_now().await;
        }
        balancer.more(4 * CLIENTS).await;
    }
    balancer.stopped.store(true, Ordering::SeqCst);
    let mut ids = Vec::new();
    for client in clients {
        ids.extend(client.await.unwrap());
    }
    probing.await.unwrap();
    for server in servers {
        server.terminate();
        server.signal("-TERM");
        server.wait();
    }
    let paths: Vec<PathBuf> = logs.iter().map(|log| log.path().to_owned()).collect();
    let ended = ended(&paths);
    assert!(ids.len() >= 12 * CLIENTS, "{}", ids.len());
    assert_eq!(ended.len(), ids.len(), "as many as were sent");
    for id in ids {
        assert_eq!(ended.get(&id), Some(&1), "{id} was answered by one server, once");
    }
    for log in &paths[2..] {
        let text = std::fs::read_to_string(log).unwrap();
        assert!(text.contains("request ended"), "the new ones have had their share");
    }
}
