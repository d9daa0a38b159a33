//! The life of an adapter over gRPC, on a real store.

use futures::stream;
use prost_types::value::Kind;
use tonic::{Code, Status};

use super::{
    super::proto::{
        Adapter, DeleteAdapterRequest, GenerateRequest, GetAdapterRequest, Namespace, Residency,
        UploadAdapterRequest, UploadAdapterResponse,
        upload_adapter_request::{Chunk, File, Part, Start},
    },
    kit::{Server, asking, told},
};
use crate::{
    adapter::{archive, folder::AdapterBytes},
    api::http::tests::{
        adapters::{files, stored},
        kit::{GOOD, Stage, say},
    },
};

/// A server with a store of its own.
struct Shop {
    server: Server,
    _root: tempfile::TempDir,
}

impl Shop {
    async fn open() -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut stage = Stage::new();
        stage.options.max_adapter_bytes = 20_000;
        stage.service.catalogue = stored(root.path()).await;
        let server = Server::of(stage, |arrival| say(&arrival, &[(GOOD, "good")], "")).await;
        Self { server, _root: root }
    }

    async fn send(&self, messages: Vec<UploadAdapterRequest>) -> Result<UploadAdapterResponse, Status> {
        self.server.adapters().upload_adapter(stream::iter(messages)).await.map(tonic::Response::into_inner)
    }

    async fn put(&self, start: Start, value: f32) -> Result<UploadAdapterResponse, Status> {
        self.send(whole(start, &files(value))).await
    }

    async fn get(&self, name: &str) -> Result<Adapter, Status> {
        let asked = GetAdapterRequest { name: name.into() };
        self.server.adapters().get_adapter(asked).await.map(|answer| answer.into_inner().adapter.unwrap())
    }

    async fn delete(&self, asked: DeleteAdapterRequest) -> Result<(), Status> {
        self.server.adapters().delete_adapter(asked).await.map(drop)
    }
}

fn named(name: &str) -> Start {
    Start { name: name.into(), ..Start::default() }
}

fn start(start: Start) -> UploadAdapterRequest {
    UploadAdapterRequest { part: Some(Part::Start(start)) }
}

fn chunk(file: File, data: &[u8]) -> UploadAdapterRequest {
    UploadAdapterRequest { part: Some(Part::Chunk(Chunk { file: file.into(), data: data.into() })) }
}

/// All messages of an upload, the weights in small pieces.
fn whole(first: Start, files: &AdapterBytes) -> Vec<UploadAdapterRequest> {
    let mut messages = vec![start(first), chunk(File::Config, &files.config)];
    messages.extend(files.weights.chunks(10).map(|piece| chunk(File::Weights, piece)));
    messages.push(chunk(File::Card, files.card.as_ref().unwrap()));
    messages
}

#[tokio::test]
async fn an_adapter_is_uploaded_used_exchanged_and_removed() {
    let shop = Shop::open().await;
    let made = shop.put(named("mine"), 0.5).await.unwrap();
    let adapter = made.adapter.unwrap();
    assert!(made.created);
    assert_eq!((adapter.name.as_str(), adapter.method.as_str()), ("mine", "pt"));
    assert_eq!((adapter.prompt_length, adapter.rank, adapter.max_length), (2, 0, None));
    assert_eq!((adapter.parameters, adapter.alias_of.clone(), adapter.pinned), (8, None, false));
    assert_eq!((adapter.namespace(), adapter.residency()), (Namespace::Home, Residency::Host));
    assert!(adapter.created_at.unwrap().seconds > 1_700_000_000);
    let labels = adapter.card.as_ref().unwrap().fields["labels"].kind.clone();
    let Some(Kind::StructValue(labels)) = labels else { panic!("{labels:?}") };
    assert_eq!(labels.fields["good"].kind, Some(Kind::StringValue("positive".into())));
    assert_eq!(shop.get("mine").await.unwrap(), adapter);

    let asked = GenerateRequest { adapter: "mine".into(), ..asking("a") };
    let answer = shop.server.inference().generate(asked).await.unwrap().into_inner();
    assert_eq!(answer.choices[0].label.as_deref(), Some("positive"));
    assert_eq!(answer.adapter_version.as_deref(), Some(adapter.version.as_str()));

    let again = shop.put(named("mine"), 0.5).await.unwrap();
    assert_eq!((again.created, again.adapter.unwrap().version), (false, adapter.version.clone()));
    let second = shop.put(named("mine"), 0.25).await.unwrap().adapter.unwrap();
    assert_ne!(second.version, adapter.version);
    let pinned = format!("mine@{}", &adapter.version["sha256:".len()..][..12]);
    assert_eq!(shop.get(&pinned).await.unwrap().version, adapter.version);

    let one = |version: &str, if_version: &str| DeleteAdapterRequest {
        name: "mine".into(),
        version: version.into(),
        if_version: if_version.into(),
        ..DeleteAdapterRequest::default()
    };
    let status = shop.delete(one("", &adapter.version)).await.unwrap_err();
    assert_eq!((told(&status).1.as_str(), status.code()), ("PRECONDITION_FAILED", Code::Aborted));
    shop.delete(one(&second.version["sha256:".len()..], "")).await.unwrap();
    assert_eq!(shop.get("mine").await.unwrap().version, adapter.version);
    shop.delete(one("", &adapter.version)).await.unwrap();
    let status = shop.get("mine").await.unwrap_err();
    assert_eq!((told(&status).1.as_str(), status.code()), ("ADAPTER_NOT_FOUND", Code::NotFound));
}

#[tokio::test]
async fn an_upload_can_be_conditional_shared_or_an_archive() {
    let shop = Shop::open().await;
    let only_new = Start { only_new: true, ..named("mine") };
    let first = shop.put(only_new.clone(), 0.5).await.unwrap().adapter.unwrap();
    let status = shop.put(only_new, 0.25).await.unwrap_err();
    assert_eq!(told(&status).1, "PRECONDITION_FAILED");
    let next = Start { if_version: first.version.clone(), ..named("mine") };
    shop.put(next.clone(), 0.25).await.unwrap();
    let status = shop.put(next, 0.125).await.unwrap_err();
    assert_eq!(told(&status).1, "PRECONDITION_FAILED", "somebody was faster");

    let shared = Start { namespace: Namespace::Shared.into(), ..named("ours") };
    let ours = shop.put(shared, 0.5).await.unwrap().adapter.unwrap();
    assert_eq!((ours.namespace(), ours.version), (Namespace::Shared, first.version.clone()));

    let packed = archive::pack(&files(0.5));
    let messages =
        vec![start(named("packed")), chunk(File::Archive, &packed[..9]), chunk(File::Archive, &packed[9..])];
    assert_eq!(shop.send(messages).await.unwrap().adapter.unwrap().version, first.version);
}

#[tokio::test]
async fn an_upload_that_is_not_one_changes_nothing() {
    let shop = Shop::open().await;
    let good = files(0.5);
    let all = || whole(named("mine"), &good);
    let nothing = UploadAdapterRequest { part: None };
    let unknown = UploadAdapterRequest { part: Some(Part::Chunk(Chunk { file: 9, data: Vec::new() })) };
    let both = Start { if_version: format!("sha256:{}", "0".repeat(64)), only_new: true, ..named("mine") };
    let cases: Vec<(&str, Vec<UploadAdapterRequest>)> = vec![
        ("start", vec![]),
        ("start", all()[1..].to_vec()),
        ("start", [all(), vec![start(named("two"))]].concat()),
        ("part", vec![start(named("mine")), nothing]),
        ("file", vec![start(named("mine")), chunk(File::Unspecified, b"x")]),
        ("file", vec![start(named("mine")), unknown]),
        ("file", [all(), vec![chunk(File::Archive, b"x")]].concat()),
        ("weights", all()[..2].to_vec()),
        ("config", [vec![start(named("mine"))], all()[2..].to_vec()].concat()),
        ("name", whole(named("No"), &good)),
        ("if_version", whole(Start { if_version: "1".into(), ..named("mine") }, &good)),
        ("only_new", whole(both, &good)),
        ("namespace", whole(Start { namespace: 9, ..named("mine") }, &good)),
    ];
    for (field, messages) in cases {
        let status = shop.send(messages).await.unwrap_err();
        assert_eq!(told(&status).2.as_deref(), Some(field), "{status:?}");
    }
    let broken = AdapterBytes { weights: b"not a file".to_vec(), ..good.clone() };
    let status = shop.send(whole(named("mine"), &broken)).await.unwrap_err();
    assert_eq!((told(&status).1.as_str(), status.code()), ("INVALID_ADAPTER", Code::InvalidArgument));
    let large = vec![0; 15_000];
    let messages = vec![start(named("mine")), chunk(File::Weights, &large), chunk(File::Weights, &large)];
    let status = shop.send(messages).await.unwrap_err();
    assert_eq!((told(&status).1.as_str(), status.code()), ("TOO_LARGE", Code::ResourceExhausted));
    let one = vec![start(named("mine")), chunk(File::Weights, &vec![0; 100_000])];
    assert_eq!(told(&shop.send(one).await.unwrap_err()).1, "TOO_LARGE");
    assert_eq!(shop.get("mine").await.unwrap_err().code(), Code::NotFound);
}
