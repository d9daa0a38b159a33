use super::ErrorCode;
use crate::contract;

const BODY: &str =
    r#"{"error": {"message": "…", "type": "…", "param": null, "code": "…", "request_id": "…"}}"#;

#[test]
fn the_error_table_has_one_line_for_every_code_in_order() {
    for (at, row) in ErrorCode::table().iter().enumerate() {
        assert_eq!(row.code as usize, at);
        assert_eq!(row.code.as_str(), row.name);
    }
}

/// A gRPC code as its documents write it.
fn canonical(code: tonic::Code) -> String {
    let mut words = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push('_');
        }
        words.push(letter.to_ascii_uppercase());
    }
    words
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
