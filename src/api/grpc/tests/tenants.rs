//! Keys and scopes on every rpc, and what a tenant may see.

use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::{Code, Status, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;

use super::{
    super::{
        access,
        proto::{
            self, DESCRIPTORS, GenerateRequest, GetAdapterRequest, ListAdaptersRequest, TokenizeRequest,
            tokenize_request,
        },
    },
    kit::{Server, asking, retry, told, with_key},
};
use crate::{
    api::{
        frame::access::Access,
        http::tests::{
            keyed::{Keyed, file, key},
            kit::{GOOD, say},
        },
    },
    tenancy::{ApiKey, Scope},
};

async fn keyed(text: &str) -> (Server, tempfile::TempDir) {
    let Keyed { stage, folder, .. } = Keyed::new(text);
    (Server::of(stage, |arrival| say(&arrival, &[(GOOD, "good")], "")).await, folder)
}

/// The path of every rpc of the protos.
fn rpcs() -> Vec<String> {
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let mut paths = Vec::new();
    for (package, service) in files.iter().flat_map(|f| f.service.iter().map(move |s| (f.package(), s))) {
        let path = |rpc: &prost_types::MethodDescriptorProto| {
            format!("/{package}.{}/{}", service.name(), rpc.name())
        };
        paths.extend(service.method.iter().map(path));
    }
    assert_eq!(paths.len(), 8, "{paths:?}");
    paths
}

/// Calls an rpc with a message of nothing, which every one of them can read.
async fn call(channel: &Channel, path: &str, key: Option<&ApiKey>) -> Result<(), Status> {
    let mut raw = Grpc::new(channel.clone());
    raw.ready().await.unwrap();
    let codec = ProstCodec::<GetAdapterRequest, GetAdapterRequest>::default();
    let request = match key {
        Some(key) => with_key(GetAdapterRequest::default(), key),
        None => tonic::Request::new(GetAdapterRequest::default()),
    };
    raw.unary(request, path.parse().unwrap(), codec).await.map(drop)
}

#[tokio::test]
async fn every_rpc_asks_for_its_scope_and_nothing_else() {
    let (some, lacking) = (Scope::ALL.map(|_| key()), Scope::ALL.map(|_| key()));
    let others =
        Scope::ALL.map(|one| Scope::ALL.into_iter().filter(|&scope| scope != one).collect::<Vec<_>>());
    let mut keys: Vec<(&ApiKey, &[Scope])> = Vec::new();
    for at in 0..Scope::ALL.len() {
        keys.push((&some[at], &Scope::ALL[at..=at]));
        keys.push((&lacking[at], &others[at]));
    }
    let (server, _folder) = keyed(&file("acme", &keys, "")).await;
    for path in rpcs() {
        let Some(Access::Needs(scope)) = access::declared(&axum::http::Method::POST, &path) else {
            panic!("{path} asks for nothing")
        };
        let at = Scope::ALL.iter().position(|&one| one == scope).unwrap();
        for stranger in [None, Some(&key())] {
            let status = call(&server.channel, &path, stranger).await.unwrap_err();
            let wanted = ("UNAUTHORIZED", Code::Unauthenticated);
            assert_eq!((told(&status).1.as_str(), status.code()), wanted, "{path}");
        }
        let status = call(&server.channel, &path, Some(&lacking[at])).await.unwrap_err();
        let (code, reason, _, message) = told(&status);
        assert_eq!((reason.as_str(), code), ("FORBIDDEN", Code::PermissionDenied), "{path}");
        assert!(message.contains(&format!("'{scope}'")), "{message}");
        if let Err(status) = call(&server.channel, &path, Some(&some[at])).await {
            // A message of nothing is wrong, or answered with another message.
            assert!(![Code::Unauthenticated, Code::PermissionDenied].contains(&status.code()), "{path}");
        }
    }
}

#[tokio::test]
async fn what_a_tenant_may_not_use_is_as_if_it_were_not_there() {
    let mine = key();
    let text = file("acme", &[(&mine, &Scope::ALL)], "adapters = [\"sst2\", \"c*\"]");
    let (server, _folder) = keyed(&text).await;
    let mut seen = Vec::new();
    // One is there and hidden, one is not there.
    for name in ["pt", "px"] {
        let generate = GenerateRequest { adapter: name.into(), ..asking("a") };
        let tokenize = TokenizeRequest {
            adapter: name.into(),
            prompt: Some(tokenize_request::Prompt::Text("a".into())),
        };
        let refused = [
            server.inference().generate(with_key(generate, &mine)).await.unwrap_err(),
            server.inference().tokenize(with_key(tokenize, &mine)).await.unwrap_err(),
            server
                .adapters()
                .get_adapter(with_key(GetAdapterRequest { name: name.into() }, &mine))
                .await
                .unwrap_err(),
        ];
        let told = refused.each_ref().map(|status| {
            let (code, reason, field, message) = told(status);
            assert_eq!(reason, "ADAPTER_NOT_FOUND");
            (code, field, message.replace(&format!("'{name}'"), "NAME"))
        });
        seen.push(told);
    }
    assert_eq!(seen[0], seen[1]);
    let page = |page_size, page_token: &str| ListAdaptersRequest { page_size, page_token: page_token.into() };
    let list = server.adapters().list_adapters(with_key(page(0, ""), &mine)).await.unwrap().into_inner();
    let names = |list: &proto::ListAdaptersResponse| {
        list.adapters.iter().map(|adapter| adapter.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!((names(&list), list.next_page_token.as_str()), (vec!["cut".into(), "sst2".into()], ""));
    let list = server.adapters().list_adapters(with_key(page(1, ""), &mine)).await.unwrap().into_inner();
    assert_eq!((names(&list), list.next_page_token.as_str()), (vec!["cut".to_owned()], "cut"));
    let list = server.adapters().list_adapters(with_key(page(1, "cut"), &mine)).await.unwrap().into_inner();
    assert_eq!((names(&list), list.next_page_token.as_str()), (vec!["sst2".to_owned()], ""));
    for (asked, field) in [(page(1001, ""), "page_size"), (page(1, "No"), "page_token")] {
        let status = server.adapters().list_adapters(with_key(asked, &mine)).await.unwrap_err();
        assert_eq!(told(&status).2.as_deref(), Some(field));
    }
}

#[tokio::test]
async fn a_quota_and_a_priority_hold_here_too() {
    let mine = key();
    let limits = "requests_per_minute = 2\nmax_priority = 2";
    let (server, _folder) = keyed(&file("acme", &[(&mine, &Scope::ALL)], limits)).await;
    let urgent = GenerateRequest { priority: 3, ..asking("a") };
    let status = server.inference().generate(with_key(urgent, &mine)).await.unwrap_err();
    assert_eq!(told(&status).2.as_deref(), Some("priority"));
    let allowed = GenerateRequest { priority: 2, ..asking("a") };
    server.inference().generate(with_key(allowed, &mine)).await.unwrap();
    let status = server.inference().generate(with_key(asking("a"), &mine)).await.unwrap_err();
    assert_eq!((told(&status).1.as_str(), status.code()), ("QUOTA_EXCEEDED", Code::ResourceExhausted));
    assert!((1..=30).contains(&retry(&status).unwrap()), "one comes back every 30 s");
}
