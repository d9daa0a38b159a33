mod server;

use std::fs;

use serde_json::json;
use tempfile::TempDir;

use self::server::{File, Server};
use super::*;
use crate::config::ModelSource;

fn weights_bytes() -> Vec<u8> {
    (0..5000u32).flat_map(u32::to_le_bytes).collect()
}

fn whole_model() -> Server {
    Server::start([
        ("config.json", File::small(b"{}")),
        ("tokenizer.json", File::small(b"{\"t\": 1}")),
        ("generation_config.json", File::small(b"{\"g\": 1}")),
        ("model.safetensors", File::large(&weights_bytes())),
        ("README.md", File::small(b"not wanted")),
    ])
}

fn hub(server: &Server, home: &TempDir) -> Hub {
    let settings = HubSettings {
        endpoint: Some(format!("{}/", server.endpoint)),
        home: Some(home.path().to_owned()),
        ..HubSettings::default()
    };
    Hub::new(settings).unwrap()
}

fn model(text: &str) -> HubModel {
    HubModel::parse(text).unwrap()
}

fn fetch(server: &Server, home: &TempDir) -> Result<PathBuf, HubError> {
    hub(server, home).fetch(&model("org/name"))
}

#[test]
fn a_whole_model_comes_and_is_not_asked_for_again() {
    let (server, home) = (whole_model(), TempDir::new().unwrap());
    let folder = fetch(&server, &home).unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), weights_bytes());
    assert_eq!(fs::read(folder.join("generation_config.json")).unwrap(), b"{\"g\": 1}");
    assert!(!folder.join("README.md").exists());

    server.change(|state| state.status = Some(500));
    assert_eq!(fetch(&server, &home).unwrap(), folder);
}

#[test]
fn the_token_is_sent() {
    let (server, home) = (whole_model(), TempDir::new().unwrap());
    let settings = HubSettings {
        endpoint: Some(server.endpoint.clone()),
        token: Some("secret".into()),
        home: Some(home.path().to_owned()),
        progress: false,
    };
    Hub::new(settings).unwrap().fetch(&model("org/name")).unwrap();
    assert_eq!(server.state.lock().unwrap().authorization.as_deref(), Some("Bearer secret"));
}

#[test]
fn shards_come_as_the_index_names_them() {
    let index = |shard: &str| json!({"weight_map": {"a": "m-1.safetensors", "b": shard}}).to_string();
    let server = Server::start([
        ("config.json", File::small(b"{}")),
        ("tokenizer.json", File::small(b"{}")),
        ("model.safetensors.index.json", File::small(index("m-2.safetensors").as_bytes())),
        ("m-1.safetensors", File::large(b"one")),
        ("m-2.safetensors", File::large(b"two")),
    ]);
    let home = TempDir::new().unwrap();
    let folder = fetch(&server, &home).unwrap();
    assert_eq!(fs::read(folder.join("m-2.safetensors")).unwrap(), b"two");

    for (shard, expected) in
        [("../../x", "isn't a plain file name"), ("m-3.safetensors", "has no m-3.safetensors")]
    {
        let file = File::small(index(shard).as_bytes());
        server.change(|state| drop(state.files.insert("model.safetensors.index.json".into(), file)));
        let message = fetch(&server, &TempDir::new().unwrap()).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_cut_connection_is_taken_up_where_it_broke() {
    let (server, home) = (whole_model(), TempDir::new().unwrap());
    let cut = |state: &mut server::State, after, cuts| {
        let file = state.files.get_mut("model.safetensors").unwrap();
        (file.cut_after, file.cuts) = (after, cuts);
    };
    server.change(|state| cut(state, 7000, 2));
    let folder = fetch(&server, &home).unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), weights_bytes());
    assert_eq!(server.ranges("model.safetensors"), ["bytes=0-", "bytes=7000-", "bytes=14000-"]);
}

#[test]
fn a_later_run_goes_on_with_a_partial_file() {
    let (server, home) = (whole_model(), TempDir::new().unwrap());
    let change = |after, cuts| {
        server.change(|state| {
            let file = state.files.get_mut("model.safetensors").unwrap();
            (file.cut_after, file.cuts) = (after, cuts);
        });
    };
    // The first try brings 100 bytes, the next none: the run ends and keeps them.
    change(0, usize::MAX);
    let blobs = home.path().join("hub/models--org--name/blobs");
    let etag = File::large(&weights_bytes()).etag;
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{etag}.part")), &weights_bytes()[..100]).unwrap();
    let error = fetch(&server, &home).unwrap_err();
    assert!(matches!(error, HubError::Transfer { .. }), "{error}");

    change(0, 0);
    let folder = fetch(&server, &home).unwrap();
    assert_eq!(server.ranges("model.safetensors"), ["bytes=100-", "bytes=100-"]);
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), weights_bytes());
}

#[test]
fn wrong_bytes_are_refused_and_removed() {
    let (server, home) = (whole_model(), TempDir::new().unwrap());
    server.change(|state| state.files.get_mut("model.safetensors").unwrap().bytes[9] ^= 1);
    let error = fetch(&server, &home).unwrap_err();
    assert!(matches!(error, HubError::Damaged { what: "SHA-256", .. }), "{error}");
    let repo = home.path().join("hub/models--org--name");
    assert!(!repo.join("snapshots").join(server::COMMIT).join("model.safetensors").exists());
    assert!(!repo.join("blobs").join(File::large(&weights_bytes()).etag).exists());

    server.change(|state| state.files.get_mut("model.safetensors").unwrap().bytes[9] ^= 1);
    assert!(fetch(&server, &home).is_ok());
}

#[test]
fn a_file_that_lies_elsewhere_is_followed_and_checked() {
    let (server, home) = (whole_model(), TempDir::new().unwrap());
    server.change(|state| {
        let file = state.files.get_mut("model.safetensors").unwrap();
        (file.moved, file.cut_after, file.cuts) = (true, 7000, 1);
    });
    let folder = fetch(&server, &home).unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), weights_bytes());

    server.change(|state| state.files.get_mut("model.safetensors").unwrap().bytes[9] ^= 1);
    let error = fetch(&server, &TempDir::new().unwrap()).unwrap_err();
    assert!(matches!(error, HubError::Damaged { what: "SHA-256", .. }), "{error}");
}

#[test]
fn a_partial_file_that_can_t_be_right_is_dropped() {
    let (server, home) = (whole_model(), TempDir::new().unwrap());
    let blobs = home.path().join("hub/models--org--name/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let etag = File::large(&weights_bytes()).etag;
    fs::write(blobs.join(format!("{etag}.part")), [0; 30_000]).unwrap();
    assert!(fetch(&server, &home).is_ok());
}

#[test]
fn refusals_say_what_to_do() {
    let (server, home) = (whole_model(), TempDir::new().unwrap());
    for (status, expected) in
        [(401, "set HF_TOKEN"), (403, "set HF_TOKEN"), (404, "no such folder"), (503, "503")]
    {
        server.change(|state| state.status = Some(status));
        let message = fetch(&server, &home).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains("org/name"), "{message}");
    }
    server.change(|state| {
        state.status = None;
        state.files.remove("tokenizer.json");
    });
    let message = fetch(&server, &home).unwrap_err().to_string();
    assert!(message.contains("'org/name' has no tokenizer.json"), "{message}");
    let nobody = Server { endpoint: "http://127.0.0.1:1".into(), state: server.state.clone() };
    assert!(matches!(fetch(&nobody, &home).unwrap_err(), HubError::Transfer { .. }));
}

#[test]
fn an_etag_can_t_leave_the_cache() {
    let (server, home) = (whole_model(), TempDir::new().unwrap());
    server.change(|state| state.files.get_mut("config.json").unwrap().etag = "../../../x".into());
    let error = fetch(&server, &home).unwrap_err();
    assert!(matches!(error, HubError::Answer { .. }), "{error}");
}

#[test]
fn one_gguf_file_can_be_named() {
    let server = Server::start([("q/m.gguf", File::large(b"GGUF"))]);
    let home = TempDir::new().unwrap();
    let path = hub(&server, &home).fetch(&model("org/name/q/m.gguf")).unwrap();
    assert_eq!(fs::read(path).unwrap(), b"GGUF");
    let message = hub(&server, &home).fetch(&model("org/name/n.gguf")).unwrap_err().to_string();
    assert!(message.contains("has no n.gguf"), "{message}");
}

#[test]
fn names_are_told_from_paths() {
    for (text, id, revision, gguf) in [
        ("org/name", "org/name", "main", None),
        ("org/name@v1.0", "org/name", "v1.0", None),
        ("org/na.me/a/b-Q8_0.gguf@main", "org/na.me", "main", Some("a/b-Q8_0.gguf")),
    ] {
        let model = model(text);
        assert_eq!((model.id(), model.revision(), model.gguf()), (id, revision, gguf));
    }
    for bad in [
        "",
        "name",
        "/org/name",
        "./name",
        "../name",
        "org/../x.gguf",
        "org/name/file.bin",
        "org/n me",
        "org/name@",
        "a/b/../c.gguf",
    ] {
        assert_eq!(HubModel::parse(bad), None, "{bad}");
    }
}

#[test]
fn what_is_on_disk_wins_over_the_hub() {
    let folder = TempDir::new().unwrap();
    let gguf = folder.path().join("m.gguf");
    fs::write(&gguf, "x").unwrap();
    fs::write(folder.path().join("m.bin"), "x").unwrap();
    let parse = |path: &std::path::Path| path.to_str().unwrap().parse::<ModelSource>();
    assert_eq!(parse(folder.path()).unwrap(), ModelSource::Folder(folder.path().to_owned()));
    assert_eq!(parse(&gguf).unwrap(), ModelSource::Gguf(gguf.clone()));
    assert_eq!(parse(&gguf).unwrap().default_name(), "m");
    assert!(parse(&folder.path().join("m.bin")).unwrap_err().to_string().contains("not a .gguf file"));
    assert!(parse(&folder.path().join("absent")).unwrap_err().to_string().contains("org/name"));
    let remote: ModelSource = "some-org/some-model@dev".parse().unwrap();
    assert_eq!(
        (remote.default_name(), remote.to_string()),
        ("some-model".into(), "some-org/some-model@dev".into())
    );
}
