//! Whatever is wrong with a configuration, the server does not start and says which key, which value and why.

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::{
    support::process::{dept, said},
    support::{golden, repo},
};

/// How a mistake is made.
enum Mistake<'a> {
    Flags(&'a [&'a str]),
    Variable(&'a str, &'a str),
    File(&'a str),
}

/// What the server says to it: its exit code and its words, after which nothing of it runs.
fn told(folder: &Path, mistake: &Mistake<'_>) -> (Option<i32>, String) {
    let mut command = dept(&["serve", "--http", "127.0.0.1:0", "--grpc", "off", "--admin", "127.0.0.1:0"]);
    command.current_dir(folder);
    match mistake {
        Mistake::Flags(flags) => command.args(*flags),
        Mistake::Variable(name, value) => command.env(name, value),
        Mistake::File(text) => {
            fs::write(folder.join("dept.toml"), text).unwrap();
            command.args(["--config", "dept.toml"])
        }
    };
    let output = command.output().unwrap();
    // A file in the working folder is found without being named: the next mistake is not to find it.
    let _ = fs::remove_file(folder.join("dept.toml"));
    (output.status.code(), said(&output))
}

#[test]
fn a_wrong_word_is_named_wherever_it_stands() {
    use Mistake::{File, Flags, Variable};
    let folder = TempDir::new().unwrap();
    let cases: [(Mistake<'_>, i32, &[&str]); 26] = [
        // Values that are none, on each of the three ways.
        (Flags(&["--threads", "many"]), 2, &["--threads", "'many'", "invalid digit"]),
        (Flags(&["--kv-cache-bytes", "1 apple"]), 2, &["--kv-cache-bytes", "'1 apple'", "write a size like"]),
        (Flags(&["--drain-timeout", "soon"]), 2, &["--drain-timeout", "'soon'", "write a time like"]),
        (Flags(&["--device", "tpu"]), 2, &["--device", "'tpu'", "auto, cpu or cuda:N"]),
        (Flags(&["--dtype", "q3"]), 2, &["--dtype", "'q3'", "possible values"]),
        (Flags(&["--cpu-isa", "sse"]), 2, &["--cpu-isa", "'sse'", "auto, amx, avx512, avx2, portable"]),
        (Flags(&["--kv-cache-dtype", "f8"]), 2, &["--kv-cache-dtype", "'f8'", "auto, f32, f16"]),
        (File("wait_for_pinned = \"perhaps\""), 78, &["dept.toml", "'wait_for_pinned'", "'perhaps'"]),
        (Flags(&["--max-num-seqs", "0"]), 2, &["--max-num-seqs", "'0'", "from 1 to"]),
        (Flags(&["--log-format", "xml"]), 2, &["--log-format", "'xml'", "text, json"]),
        (Flags(&["--cors-origin", "https://A.example/"]), 2, &["--cors-origin", "small letters"]),
        (Variable("DEPT_QUEUE_TOKENS", "-1"), 2, &["--queue-tokens", "'-1'", "from 1 to"]),
        (Variable("DEPT_PREFIX_CACHE", "perhaps"), 2, &["--prefix-cache", "'perhaps'", "true, false"]),
        (File("max_body_bytes = \"huge\""), 78, &["dept.toml", "'max_body_bytes'", "'huge'"]),
        (File("stuck_after = \"a while\""), 78, &["dept.toml", "'stuck_after'", "'a while'"]),
        (File("thread = 2"), 78, &["unknown key 'thread'", "dept.toml", "threads"]),
        (File("[serve]\nthreads = 2"), 78, &["unknown key 'serve'", "dept.toml"]),
        (File("threads = 2\nthreads = 3"), 78, &["dept.toml is not TOML", "threads", "duplicate key"]),
        // Values that are, and can't be had.
        (Flags(&["--log", "dept=loud"]), 78, &["--log", "'dept=loud'", "write a level"]),
        (Flags(&["--model", "/no/such/model"]), 78, &["--model", "/no/such/model"]),
        (Flags(&["--adapters", "/no/such/folder"]), 78, &["--adapters", "/no/such/folder", "no such folder"]),
        (Flags(&["--adapters", "ftp://somewhere/x"]), 78, &["--adapters", "'ftp://somewhere/x'", "s3://"]),
        (Flags(&["--device", "cuda:0"]), 78, &["--device cuda:0", "is built without CUDA"]),
        (
            Flags(&["--device", "cpu", "--dtype", "bf16"]),
            78,
            &["--dtype bf16 is not for the CPU", "use auto, which keeps the bf16 of a file"],
        ),
        (Flags(&["--head-timeout", "0s"]), 78, &["--head-timeout is 0", "give it some time"]),
        (Flags(&["--kv-cache-bytes", "1KiB"]), 78, &["--kv-cache-bytes", "give at least"]),
    ];
    for (mistake, code, words) in &cases {
        let (found, said) = told(folder.path(), mistake);
        assert_eq!(found, Some(*code), "{words:?}: {said}");
        for word in *words {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
        assert!(!said.contains("panicked") && !said.contains("ready:"), "{said}");
    }
}

#[test]
fn what_contradicts_or_lets_everybody_in_is_refused() {
    use Mistake::Flags;
    let folder = TempDir::new().unwrap();
    let cases: [(&[&str], &[&str]); 7] = [
        (&["--http", "0.0.0.0:0"], &["--http 0.0.0.0:0", "--allow-anonymous"]),
        (&["--grpc", "[::]:0"], &["--grpc [::]:0", "--api-keys"]),
        (&["--api-keys", "k.toml", "--allow-anonymous"], &["--api-keys and --allow-anonymous exclude"]),
        (&["--tls-cert", "c.pem"], &["--tls-cert needs --tls-key"]),
        (&["--cors-origin", "*"], &["--cors-origin *", "name origins"]),
        (&["--http", "127.0.0.1:7", "--admin", "127.0.0.1:7"], &["--http and --admin are both 127.0.0.1:7"]),
        (&["--otlp-headers", "k=v"], &["--otlp-headers needs --otlp-endpoint"]),
    ];
    for (flags, words) in cases {
        // The flags that stand in front are given once more: the last one counts nowhere, so those are left out.
        let mut command = dept(&["serve"]);
        for (flag, usual) in [("--http", "127.0.0.1:0"), ("--grpc", "off"), ("--admin", "127.0.0.1:0")] {
            if !flags.contains(&flag) {
                command.args([flag, usual]);
            }
        }
        let output = command.args(flags).current_dir(folder.path()).output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(78), "{said}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
    }
    let (code, said) = told(folder.path(), &Flags(&["--http", "127.0.0.1:0"]));
    assert_eq!(code, Some(2), "a flag twice is a mistake too: {said}");
}

#[test]
fn a_file_that_is_named_must_be_one() {
    use Mistake::Flags;
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (none, junk) = (folder.path().join("none").to_str().unwrap().to_owned(), write("junk", "[[[ no"));
    let (key, empty) = (write("key.pem", ""), TempDir::new().unwrap());
    let nowhere = folder.path().join("no/such/folder/ports").to_str().unwrap().to_owned();
    let (model, adapters) = (golden("adapters/llama"), repo("adapters"));
    let cases: [(&[&str], &[&str]); 9] = [
        (&["--config", &none], &["cannot read", &none]),
        (&["--config", &junk], &[&junk, "is not TOML"]),
        (&["--api-keys", &none], &["none"]),
        (&["--api-keys", &junk], &["junk"]),
        (&["--tls-cert", &none, "--tls-key", &key], &["--tls-cert", "none"]),
        (&["--adapter-load-root", &none], &["--adapter-load-root", "none", "name a folder that is there"]),
        (&["--port-file", &nowhere], &["--port-file", &nowhere]),
        (&["--model", model.to_str().unwrap()], &["no weights in", "model.safetensors"]),
        (
            &["--model", empty.path().to_str().unwrap(), "--adapters", adapters.to_str().unwrap()],
            &["no weights in", ".gguf"],
        ),
    ];
    for (flags, words) in cases {
        let (code, said) = told(folder.path(), &Flags(flags));
        assert_eq!(code, Some(78), "{flags:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
        assert!(!said.contains("panicked"), "{said}");
    }
}
