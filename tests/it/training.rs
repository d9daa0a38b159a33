//! `dept train` and `dept eval` as a user runs them, on the tiny T5.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    support::golden,
    support::process::{Server, dept, run, said},
};

const WORDS: [&str; 8] =
    ["a warm film", "dull", "superb and funny", "a mess", "good", "bad", "a story", "the end"];

/// Examples that a soft prompt can learn: the answer is told by the text's length.
fn data(folder: &Path, count: usize) -> String {
    let line = |at: usize| {
        let words = WORDS[at % WORDS.len()];
        format!("{{\"sentence\": \"{words} {}\", \"target\": \"{}\"}}\n", "x".repeat(at % 3), at % 2)
    };
    let path = folder.join("data.jsonl");
    fs::write(&path, (0..count).map(line).collect::<String>()).unwrap();
    path.to_str().unwrap().to_owned()
}

struct Rig {
    folder: TempDir,
    data: String,
    model: String,
}

impl Rig {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let data = data(folder.path(), 24);
        Self { folder, data, model: golden("t5-v1_1").to_str().unwrap().to_owned() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn train(&self, out: &str, more: &[&str]) -> Vec<String> {
        let out = self.path(out);
        let base = [
            "--model",
            &self.model,
            "--data",
            &self.data,
            "--out",
            &out,
            "--task",
            "sst2",
            "--prompt-length",
            "4",
            "--rank",
            "2",
            "--max-length",
            "24",
            "--steps",
            "40",
            "--batch-size",
            "4",
            "--threads",
            "1",
            "--eval-data",
            &self.data,
            "--eval-every",
            "20",
            "--max-tokens",
            "3",
            "--checkpoint-every",
            "5",
        ];
        // A flag in `more` is in place of its own here.
        let kept = base.chunks(2).filter(|pair| !more.contains(&pair[0])).flatten();
        ["train"].iter().chain(kept).chain(more).map(|&word| word.to_owned()).collect()
    }

    fn losses(&self, out: &str) -> Vec<(u64, f64)> {
        let text = fs::read_to_string(self.folder.path().join(out).join("training/log.jsonl")).unwrap();
        let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        entries.filter_map(|entry| Some((entry["step"].as_u64()?, entry["loss"].as_f64()?))).collect()
    }
}

fn words(owned: &[String]) -> Vec<&str> {
    owned.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn a_trained_folder_is_evaluated_here_and_on_a_server() {
    let rig = Rig::new();
    let trained = run(&words(&rig.train("tiny-task", &[])));
    assert!(trained.status.success(), "{}", said(&trained));
    let losses = rig.losses("tiny-task");
    assert_eq!(losses.len(), 40);
    assert!(losses[35..].iter().all(|(_, loss)| *loss < losses[0].1), "{losses:?}");
    let out = rig.path("tiny-task");
    let inspected = run(&["adapter", "inspect", &out]);
    assert!(inspected.status.success(), "{}", said(&inspected));
    let card = fs::read_to_string(Path::new(&out).join("card.toml")).unwrap();
    assert!(card.contains("sentence: {sentence}") && card.contains("interval_95"), "{card}");

    let page = rig.path("report.html");
    let eval = [
        "eval",
        "--model",
        &rig.model,
        "--threads",
        "1",
        "--adapter",
        &out,
        "--data",
        &rig.data,
        "--max-tokens",
        "3",
    ];
    let json = |output: &std::process::Output| -> Value { serde_json::from_slice(&output.stdout).unwrap() };
    let here = run(&[&eval[..], &["--json", "--html", &page]].concat());
    assert!(here.status.success(), "{}", said(&here));
    let here = json(&here);
    let kept: toml::Table = card.parse().unwrap();
    let value = |table: &toml::Table| table["results"].as_array().unwrap()[0]["value"].as_float().unwrap();
    assert_eq!(here["value"].as_f64().unwrap(), value(&kept), "the card says what dept eval says");
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("Training loss") && page.contains("Confusion"), "{page}");

    let server = Server::start(&[
        "--model",
        &rig.model,
        "--adapters",
        rig.folder.path().to_str().unwrap(),
        "--threads",
        "1",
    ]);
    for by in ["generation", "likelihood"] {
        let here = run(&[&eval[..], &["--json", "--by", by]].concat());
        let asked = [
            "eval",
            "--server",
            &server.http,
            "--adapter",
            "tiny-task",
            "--data",
            &rig.data,
            "--max-tokens",
            "3",
            "--json",
            "--by",
            by,
        ];
        let there = run(&asked);
        assert!(there.status.success(), "{}", said(&there));
        for key in ["value", "interval_95", "n", "auc", "majority"] {
            assert_eq!(json(&there)[key], json(&here)[key], "{by}: {key}");
        }
    }
    let unknown = run(&["eval", "--server", &server.http, "--adapter", "nobody", "--data", &rig.data]);
    assert!(said(&unknown).contains("the server says 404"), "{}", said(&unknown));
}

#[test]
fn killed_and_started_again_it_gives_the_same_losses() {
    let rig = Rig::new();
    let whole = run(&words(&rig.train("whole", &[])));
    assert!(whole.status.success(), "{}", said(&whole));

    let mut child =
        dept(&words(&rig.train("killed", &[]))).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let log = rig.folder.path().join("killed/training/log.jsonl");
    let steps = || fs::read_to_string(&log).map_or(0, |text| text.lines().count());
    while steps() < 13 && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    let before = steps();
    let again = run(&words(&rig.train("killed", &[])));
    assert!(again.status.success(), "{}", said(&again));
    if before < 40 {
        assert!(said(&again).contains("going on after step"), "{}", said(&again));
    }
    assert_eq!(rig.losses("killed"), rig.losses("whole"));
    let file = |out: &str| fs::read(rig.folder.path().join(out).join("adapter_model.safetensors")).unwrap();
    assert_eq!(file("killed"), file("whole"));
    let other = run(&words(&rig.train("killed", &["--seed", "5"])));
    assert!(said(&other).contains("seed (0 then, 5 now)"), "{}", said(&other));
}

#[test]
fn a_full_disk_stops_the_run_and_leaves_what_was_there() {
    let rig = Rig::new();
    let done = run(&words(&rig.train("full", &[])));
    assert!(done.status.success(), "{}", said(&done));
    let weights = || fs::read(rig.folder.path().join("full/adapter_model.safetensors")).unwrap();
    let before = weights();
    // A limit on file sizes fails writes just as a full disk does: one block of 512 or 1024 bytes, then an error.
    let args = rig.train("full", &["--restart", "--lr-prompt", "0.1"]);
    let binary = env!("CARGO_BIN_EXE_dept");
    let line = format!("trap '' XFSZ; ulimit -f 1; exec {binary} {}", args.join(" "));
    let full = Command::new("bash").args(["-c", &line]).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(full.status.code(), Some(1), "{}", said(&full));
    assert!(said(&full).contains("can't write") && said(&full).contains("is whole"), "{}", said(&full));
    assert_eq!(weights(), before);
}

#[test]
fn bad_input_is_told_before_anything_is_trained() {
    let rig = Rig::new();
    let file = |text: &str| {
        let path = rig.path("bad.jsonl");
        fs::write(&path, text).unwrap();
        path
    };
    let fails = |more: &[&str], expected: &str| {
        let output = run(&words(&rig.train("never", more)));
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(expected), "expected {expected}, found {}", said(&output));
        assert!(!Path::new(&rig.path("never")).exists());
    };
    let good = "{\"sentence\": \"a\", \"target\": \"1\"}\n";
    // The last --data counts, so that each case needs to name its own alone.
    fails(&["--eval-data", &file(&format!("{good}{{\"sent"))], "line 2: not JSON");
    fails(&["--eval-data", &file("")], "holds no examples");
    fails(&["--eval-data", &file(&good.replace('1', "7"))], "target '7' is not on the card");
    fails(
        &["--eval-data", &file(&good.replace("\"a\"", &format!("\"{}\"", "word ".repeat(40))))],
        "are taken: raise --max-length",
    );
    fails(&["--shots", "100"], "only 12 examples of '0'");
    fails(&["--method", "pt"], "prompt tuning has no rank");
    fails(&["--prompt-length", "0", "--rank", "0"], "leave nothing to train");
    fails(&["--init-from", "nowhere"], "no such folder or adapter");
    let llama = golden("llama").to_str().unwrap().to_owned();
    fails(&["--model", &llama, "--max-length", "5000"], "the model takes");
}

#[test]
fn without_a_terminal_lines_tell_how_it_goes() {
    let rig = Rig::new();
    let mut child =
        dept(&words(&rig.train("lines", &[]))).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines: Vec<String> =
        BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap).collect();
    assert!(child.wait().unwrap().success());
    assert!(
        lines[0].contains("m = 4, r = 2, s = 24") && lines[0].contains("24 examples, 40 steps of 4"),
        "{lines:?}"
    );
    assert!(lines.iter().any(|line| line.contains("step 40/40") && line.contains("tokens/s")), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("step 20:") && line.contains("accuracy")), "{lines:?}");
}
