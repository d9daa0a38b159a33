use super::{ApiError, ErrorCode, error::canonical};
use crate::{
    adapter::{CatalogueError, residency::LoadError, store::StoreError},
    contract,
    telemetry::StoreFault,
};

const BODY: &str =
    r#"{"error": {"message": "…", "type": "…", "param": null, "code": "…", "request_id": "…"}}"#;

#[test]
fn the_error_table_has_one_line_for_every_code_in_order() {
    for (at, row) in ErrorCode::table().iter().enumerate() {
        assert_eq!(row.code as usize, at);
        assert_eq!(row.code.as_str(), row.name);
    }
}

#[test]
fn docs_errors_is_the_table() {
    let seconds = |s: Option<u32>| s.map_or("-".into(), |s| s.to_string());
    let code = |text: &str| format!("`{text}`");
    let rows = ErrorCode::table().iter().map(|r| {
        let status = r.status.to_string();
        [
            code(r.name),
            status,
            code(r.kind),
            code(&canonical(r.grpc)),
            seconds(r.retry_after),
            r.meaning.into(),
        ]
    });
    let head = ["code", "HTTP status", "type", "gRPC code", "Retry-After (s)", "when, and what to do"];
    let text = format!(
        "# Errors\n\nEvery failure, on every route, has this body:\n\n```json\n{BODY}\n```\n\n\
         `message` says what was wrong, with the values, and what to do; `param` is the field at fault or null; \
         `request_id` is also the `x-request-id` header of the response and stands in the server's log. \
         `deadline_exceeded` comes with `x-should-retry: false`: the deadline was the client's own.\n\n\
         Over gRPC a failure has the status code below, the same message, and details: `google.rpc.ErrorInfo` with the code in \
         upper case as its reason and the domain `dept.v1`, `google.rpc.RequestInfo`, `google.rpc.BadRequest` naming the field \
         where the code is `INVALID_ARGUMENT`, and `google.rpc.RetryInfo` (and `grpc-retry-pushback-ms`) where HTTP has \
         Retry-After ([gRPC](grpc.md)).\n\n{}",
        contract::table(head, rows)
    );
    contract::hold("docs/errors.md", &text);
}

#[test]
fn a_failing_store_is_told_without_its_paths() {
    let io = |kind: std::io::ErrorKind| {
        let source = Box::new(std::io::Error::new(kind, "/srv/secret/path"));
        CatalogueError::Store(StoreError::Io(object_store::Error::Generic { store: "S3", source }))
    };
    let failed = LoadError::Failed { name: "task".parse().unwrap(), reason: "s3://secret/path".to_owned() };
    let cases = [
        (io(std::io::ErrorKind::StorageFull), ErrorCode::AdapterCapacity, "the adapter store is full"),
        (io(std::io::ErrorKind::ConnectionRefused), ErrorCode::NotReady, "the adapter store does not answer"),
        (CatalogueError::Store(StoreError::Down(StoreFault::Denied)), ErrorCode::NotReady, "does not answer"),
        (CatalogueError::Load(failed), ErrorCode::NotReady, "adapter 'task' can't be loaded now"),
    ];
    for (error, code, message) in cases {
        let told = ApiError::from(error);
        assert_eq!(told.code, code);
        assert!(told.message.contains(message) && !told.message.contains("secret"), "{}", told.message);
    }
}
