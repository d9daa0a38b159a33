//! What the server says of itself: health and reflection.

use futures::stream;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus::{self, NotServing, ServiceUnknown, Serving},
    health_client::HealthClient,
};
use tonic_reflection::pb::{v1, v1alpha};

use super::kit::Server;
use crate::api::{
    State,
    http::tests::{keyed, kit::Stage},
};

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

const SERVICES: [&str; 3] = ["", "dept.v1.InferenceService", "dept.v1.AdapterService"];

#[tokio::test]
async fn health_is_what_readiness_says() {
    let stage = Stage::new();
    let (readiness, metrics) = (stage.service.readiness.clone(), stage.metrics());
    readiness.set(State::Starting);
    let server = Server::of(stage, |_| ()).await;
    let mut client = HealthClient::new(server.channel.clone());
    for (state, status) in [
        (State::Starting, NotServing),
        (State::Pinning, NotServing),
        (State::Ready, Serving),
        (State::Draining, NotServing),
    ] {
        readiness.set(state);
        for service in SERVICES {
            let answer = client.check(about(service)).await.unwrap().into_inner();
            assert_eq!(answer.status(), status, "{service} {state:?}");
        }
    }
    let status = client.check(about("dept.v1.Nothing")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "as the health protocol wants it");
    let text = metrics.render();
    for line in [
        r#"dept_requests_total{endpoint="/grpc.health.v1.Health/Check",outcome="ok"} 12"#,
        r#"dept_requests_total{endpoint="/grpc.health.v1.Health/Check",outcome="not_found"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn a_stuck_engine_is_not_serving() {
    let mut stage = Stage::new();
    stage.options.stuck_after = std::time::Duration::ZERO;
    let metrics = stage.metrics();
    let server = Server::of(stage, |_| ()).await;
    let mut client = HealthClient::new(server.channel.clone());
    metrics.step_age.began(std::time::Instant::now());
    assert_eq!(client.check(about("")).await.unwrap().into_inner().status(), NotServing);
    metrics.step_age.ended();
    assert_eq!(client.check(about("")).await.unwrap().into_inner().status(), Serving);
}

async fn said(stream: &mut tonic::Streaming<HealthCheckResponse>) -> Option<ServingStatus> {
    stream.message().await.unwrap().map(|answer| answer.status())
}

#[tokio::test]
async fn who_watches_is_told_of_changes_and_let_go_at_the_end() {
    let stage = Stage::new();
    let readiness = stage.service.readiness.clone();
    readiness.set(State::Starting);
    let server = Server::of(stage, |_| ()).await;
    let mut client = HealthClient::new(server.channel.clone());
    let mut watch = client.watch(about(SERVICES[1])).await.unwrap().into_inner();
    assert_eq!(said(&mut watch).await, Some(NotServing));
    readiness.set(State::Ready);
    assert_eq!(said(&mut watch).await, Some(Serving));
    let mut unknown = client.watch(about("dept.v1.Nothing")).await.unwrap().into_inner();
    assert_eq!(said(&mut unknown).await, Some(ServiceUnknown));
    readiness.set(State::Draining);
    assert_eq!((said(&mut watch).await, said(&mut watch).await), (Some(NotServing), None));
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions_and_asks_for_no_key() {
    let mine = keyed::key();
    let text = keyed::file("acme", &[(&mine, &crate::tenancy::Scope::ALL)], "");
    let keyed::Keyed { stage, folder: _folder, .. } = keyed::Keyed::new(&text);
    let server = Server::of(stage, |_| ()).await;
    let expected = ["dept.v1.AdapterService", "dept.v1.InferenceService", "grpc.health.v1.Health"];
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(server.channel.clone());
    let asked = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let answer = client.server_reflection_info(stream::iter([asked])).await.unwrap();
    let answer = answer.into_inner().message().await.unwrap().unwrap().message_response.unwrap();
    let v1::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.retain(|name| !name.starts_with("grpc.reflection"));
    names.sort();
    assert_eq!(names, expected);
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(server.channel.clone());
    let symbol = "dept.v1.InferenceService.Classify".to_owned();
    let asked = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            symbol,
        )),
    };
    let answer = client.server_reflection_info(stream::iter([asked])).await.unwrap();
    let answer = answer.into_inner().message().await.unwrap().unwrap().message_response.unwrap();
    let v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(files) = answer else {
        panic!("{answer:?}")
    };
    let text = String::from_utf8_lossy(&files.file_descriptor_proto[0]).into_owned();
    assert!(text.contains("dept/v1/inference.proto"), "{text}");
}
