//! The `dept` command and its servers as processes.

use std::{
    fs,
    process::{Child, Command, ExitStatus, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use super::repo;

/// The command, with these arguments.
pub fn dept(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dept"));
    // Nothing that the machine has set leaks in, and the embedded model is found from anywhere.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DEPT_")) {
        command.env_remove(name);
    }
    command.env("DEPT_HOME", repo("")).env("DEPT_WEIGHTS_CACHE", "off").env("NO_COLOR", "1").args(args);
    command
}

/// An HTTP client.
pub fn client() -> reqwest::Client {
    // One whose TLS is not chosen yet can't be made, although nothing here speaks it.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// What it does and says.
pub fn run(args: &[&str]) -> Output {
    dept(args).output().unwrap()
}

/// All that it said.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A process of the server, with its log and port file; killed with the test.
pub struct Process {
    child: Child,
    folder: TempDir,
}

impl Process {
    /// One that starts, with these variables and flags.
    pub fn spawn(environment: &[(&str, &str)], more: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let ports = folder.path().join("ports.json");
        let mut args = vec!["serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"];
        args.extend(["--admin", "127.0.0.1:0", "--port-file"]);
        args.push(ports.to_str().unwrap());
        args.extend_from_slice(more);
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = dept(&args).envs(environment.iter().copied()).stderr(Stdio::from(log)).spawn().unwrap();
        Self { child, folder }
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    pub fn has_port_file(&self) -> bool {
        self.folder.path().join("ports.json").exists()
    }

    /// What `there` finds once there is something.
    pub fn until<T>(&mut self, there: impl Fn(&Self) -> Option<T>) -> T {
        loop {
            if let Some(found) = there(self) {
                return found;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "the server ended:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    pub fn signal(&self, signal: &str) {
        let killed = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    /// Waits for its end.
    pub fn end(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// The server that it has become, once it is ready.
    pub fn ready(mut self) -> Server {
        // The file appears whole once the server is ready.
        let ports = self.folder.path().join("ports.json");
        let text = self.until(|_| fs::read_to_string(&ports).ok());
        let addresses: Value = serde_json::from_str(&text).unwrap();
        let address = |door: &str| format!("http://{}", addresses[door].as_str().unwrap_or_default());
        Server { http: address("http"), grpc: address("grpc"), admin: address("admin"), process: self }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that is ready.
pub struct Server {
    pub http: String,
    pub grpc: String,
    pub admin: String,
    process: Process,
}

impl Server {
    pub fn start(more: &[&str]) -> Self {
        Self::start_in(&[], more)
    }

    /// With these variables.
    pub fn start_in(environment: &[(&str, &str)], more: &[&str]) -> Self {
        Process::spawn(environment, more).ready()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its log as a file that outlives it.
    pub fn log_file(&self) -> tempfile::NamedTempFile {
        let copy = tempfile::NamedTempFile::new().unwrap();
        fs::remove_file(copy.path()).unwrap();
        fs::hard_link(self.process.folder.path().join("log"), copy.path()).unwrap();
        copy
    }

    /// What it answers to `body`, with the status.
    pub async fn generate(&self, body: &Value) -> (u16, Value) {
        let sent = client().post(format!("{}/v1/generate", self.http)).json(body).send();
        let response = sent.await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// The value of a metric that must be there.
    pub async fn metric(&self, name: &str) -> f64 {
        let value = self.find(name).await;
        value.unwrap_or_else(|| panic!("no {name}"))
    }

    /// The value of a metric that is not there before it counts.
    pub async fn counted(&self, name: &str) -> f64 {
        self.find(name).await.unwrap_or(0.0)
    }

    async fn find(&self, name: &str) -> Option<f64> {
        let text =
            client().get(format!("{}/metrics", self.admin)).send().await.unwrap().text().await.unwrap();
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.map(|value| value.parse().unwrap())
    }

    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    pub fn wait(mut self) -> ExitStatus {
        self.process.end()
    }
}
