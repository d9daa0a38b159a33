//! A model's chat template: from a conversation to the text that the model was trained to continue.
//!
//! A template is a small Jinja program that comes with the model. It is run as transformers runs it
//! (`utils/chat_template_utils.py`): blocks trimmed, Python's string methods, `tojson` as `json.dumps` without HTML escapes,
//! `raise_exception`, `strftime_now` (here in UTC), loop controls and `generation` blocks, and the special tokens by name. The
//! text has the special tokens already: it is encoded without any being added.

mod json;
mod python;
mod source;
mod strftime;

use std::{fmt, sync::LazyLock, time::SystemTime};

use minijinja::{AutoEscape, Environment, ErrorKind, Value, syntax::SyntaxConfig, value::Kwargs};
use regex::Regex;

use crate::domain::{ChatMessage, UtcTime};

#[cfg(test)]
mod tests;

/// The template's name inside its environment.
const NAME: &str = "chat_template";

/// Why a conversation can't be written down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChatTemplateError {
    /// The template, or a file that it should be in, can't be read.
    #[error("the model's chat template can't be used: {0}")]
    Malformed(String),
    /// The template itself refuses the conversation.
    #[error("the model's chat template refuses the conversation: {0}")]
    Refused(String),
    /// The template fails on the conversation.
    #[error("the model's chat template fails on the conversation: {0}")]
    Failed(String),
}

/// A compiled chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Special tokens by the names that templates know: `bos_token`, `eos_token`, ….
    specials: Vec<(String, String)>,
}

impl ChatTemplate {
    /// Compiles `source`, which will see the special tokens `specials` by name.
    ///
    /// # Errors
    /// [`ChatTemplateError::Malformed`] when it is not a template.
    pub fn new(source: &str, specials: Vec<(String, String)>) -> Result<Self, ChatTemplateError> {
        let mut environment = environment();
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(|error| {
            let line = error.line().map_or(String::new(), |line| format!(" (line {line})"));
            ChatTemplateError::Malformed(format!("{}{line}", reason(&error)))
        })?;
        Ok(Self { environment, specials })
    }

    /// The text of `messages` and the beginning of the answer to them. `now` is what the template takes for today.
    ///
    /// # Errors
    /// When the template refuses the conversation or fails on it.
    pub fn render(&self, messages: &[ChatMessage], now: SystemTime) -> Result<String, ChatTemplateError> {
        let failed = |error: minijinja::Error| match raised(&error) {
            Some(message) => ChatTemplateError::Refused(message.to_owned()),
            None => ChatTemplateError::Failed(reason(&error)),
        };
        let template = self.environment.get_template(NAME).map_err(failed)?;
        let messages: Vec<Value> = messages.iter().map(as_value).collect();
        let today = UtcTime::from(now);
        let specials = self.specials.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str())));
        let variables = [
            ("messages", Value::from(messages)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(true)),
            ("strftime_now", Value::from_function(move |format: &str| strftime::format(format, &today))),
        ];
        template.render(Value::from_pairs(specials.chain(variables))).map_err(failed)
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").field("specials", &self.specials).finish_non_exhaustive()
    }
}

fn as_value(message: &ChatMessage) -> Value {
    Value::from_pairs([("role", message.role.as_str()), ("content", message.content.as_str())])
}

/// Jinja as transformers sets it up.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the usual delimiters are legal"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(|out, _, value| Ok(out.write_str(&python::text(value))?));
    environment.add_filter("string", |value: &Value| python::text(value));
    environment.add_filter("tojson", |value: &Value, options: Kwargs| json::dumps(value, &options));
    environment.add_function("raise_exception", |message: &str| -> Result<Value, minijinja::Error> {
        let raised = Raised(message.to_owned());
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message.to_owned()).with_source(raised))
    });
    environment
}

/// `generation` blocks mark what a training run learns from; rendering, they are their content.
fn without_generation_tags(source: &str) -> String {
    static TAG: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").expect("the pattern is legal")
    });
    let block = |tag: &regex::Captures<'_>| {
        let statement = if tag.get(2).is_some() { "endif" } else { "if true" };
        format!("{{%{} {statement} {}%}}", &tag[1], &tag[3])
    };
    TAG.replace_all(source, block).into_owned()
}

/// What a template says by `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raised(error: &minijinja::Error) -> Option<&str> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(Raised(message)) = cause.downcast_ref() {
            return Some(message);
        }
        source = cause.source();
    }
    None
}

fn reason(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}
