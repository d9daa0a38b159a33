use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::domain::Role;

#[derive(Deserialize)]
struct Golden {
    now: u64,
    specials: BTreeMap<String, String>,
    conversations: BTreeMap<String, Vec<Said>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Said {
    role: String,
    content: String,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    conversation: String,
    text: Option<String>,
    error: Option<String>,
}

fn said(role: &str, content: &str) -> ChatMessage {
    let roles = [Role::System, Role::User, Role::Assistant];
    let role = roles.into_iter().find(|known| known.as_str() == role).unwrap();
    ChatMessage { role, content: content.to_owned() }
}

fn render(source: &str, messages: &[ChatMessage]) -> Result<String, ChatTemplateError> {
    ChatTemplate::new(source, Vec::new())?.render(messages, UNIX_EPOCH)
}

/// `tests/golden/make_chat.py` made them with transformers.
#[test]
fn conversations_read_as_transformers_writes_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/chat");
    let golden: Golden = serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let now = UNIX_EPOCH + Duration::from_secs(golden.now);
    assert_eq!(golden.cases.len(), 54);
    for Case { template, conversation, text, error } in golden.cases {
        let source = fs::read_to_string(folder.join(format!("templates/{template}.jinja"))).unwrap();
        let compiled = ChatTemplate::new(&source, golden.specials.clone().into_iter().collect()).unwrap();
        let messages: Vec<ChatMessage> =
            golden.conversations[&conversation].iter().map(|one| said(&one.role, &one.content)).collect();
        let found = compiled.render(&messages, now);
        match (text, error) {
            (Some(text), None) => assert_eq!(found.unwrap(), text, "{template}, {conversation}"),
            (None, Some(error)) => assert_eq!(found, Err(ChatTemplateError::Refused(error))),
            _ => unreachable!(),
        }
    }
}

#[test]
fn a_template_that_is_none_is_refused_at_once() {
    for (source, word) in [("{% if %}", "(line 1)"), ("a\n{{ 1 + }}", "(line 2)"), ("{% endfor %}", "line 1")]
    {
        let error = ChatTemplate::new(source, Vec::new()).unwrap_err();
        assert!(matches!(&error, ChatTemplateError::Malformed(reason) if reason.contains(word)), "{error}");
    }
}

#[test]
fn a_template_that_fails_says_so() {
    let messages = [said("user", "a")];
    for source in
        ["{{ messages[0].content.nope() }}", "{{ 1 / 0 }}", "{{ messages.x.y }}", "{{ 1 | tojson(x=1) }}"]
    {
        assert!(matches!(render(source, &messages), Err(ChatTemplateError::Failed(_))), "{source}");
    }
    let refused = render("{{ raise_exception('no ' ~ messages[0].role) }}", &messages);
    assert_eq!(refused, Err(ChatTemplateError::Refused("no user".into())));
}

#[test]
fn generation_blocks_are_their_content() {
    let source = "a{%- generation -%} b {%- endgeneration %} c {%generation%}d{%endgeneration%}";
    assert_eq!(render(source, &[]).unwrap(), "ab c d");
}

#[test]
fn what_is_said_is_never_run() {
    let text = render("{{ messages[0].content }}", &[said("user", "{{ 1 + 1 }}{% if %}{# x #}")]).unwrap();
    assert_eq!(text, "{{ 1 + 1 }}{% if %}{# x #}");
}

#[test]
fn a_folder_keeps_its_template_in_one_of_several_places() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let read = || ChatTemplate::from_folder(folder.path());
    let rendered = || read().unwrap().unwrap().render(&[said("user", "x")], UNIX_EPOCH).unwrap();
    assert!(read().unwrap().is_none());
    write("tokenizer_config.json", r#"{"model_max_length": 512}"#);
    assert!(read().unwrap().is_none());
    let config = json!({"chat_template": "{{ bos_token }}1{{ eos_token }}", "bos_token": "<s>"});
    write("tokenizer_config.json", &config.to_string());
    assert_eq!(rendered(), "<s>1");
    write(
        "special_tokens_map.json",
        r#"{"bos_token": "<b>", "eos_token": {"content": "</s>", "lstrip": false}}"#,
    );
    assert_eq!(rendered(), "<s>1</s>");
    let named = json!([{"name": "tool_use", "template": "3"}, {"name": "default", "template": "2"}]);
    write("tokenizer_config.json", &json!({"chat_template": named}).to_string());
    assert_eq!(rendered(), "2");
    write("chat_template.jinja", "{{ messages[0].content }}");
    assert_eq!(rendered(), "x");
    write("chat_template.jinja", "{{");
    assert!(matches!(read(), Err(ChatTemplateError::Malformed(_))));
    write("tokenizer_config.json", "{");
    let error = read().unwrap_err().to_string();
    assert!(error.contains("tokenizer_config.json"), "{error}");
}
