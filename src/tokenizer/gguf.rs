//! T5's tokenizer from GGUF metadata, built as the published `tokenizer.json` is.

use tokenizers::{
    AddedToken, Tokenizer,
    decoders::metaspace::Metaspace,
    models::unigram::Unigram,
    normalizers::Precompiled,
    pre_tokenizers::{
        PreTokenizerWrapper, metaspace::PrependScheme, sequence::Sequence, whitespace::WhitespaceSplit,
    },
    processors::template::TemplateProcessing,
};

use crate::backbones::weights::{Metadata, Value};

const SPACE: char = '▁';
/// Token types of the format.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// The error says what is missing or wrong.
pub(super) fn build(metadata: &Metadata) -> Result<Tokenizer, String> {
    match metadata.text("tokenizer.ggml.model") {
        Some("t5") => {}
        Some(other) => return Err(format!("tokenizer.ggml.model is '{other}'; 't5' is read")),
        None => return Err("it has no tokenizer.ggml.model".into()),
    }
    let tokens = metadata.texts("tokenizer.ggml.tokens").ok_or("it has no tokenizer.ggml.tokens")?;
    let unknown = special(metadata, "unknown_token_id", 2, tokens)?;
    let end = special(metadata, "eos_token_id", 1, tokens)?;

    let mut tokenizer = Tokenizer::new(unigram(metadata, tokens, unknown)?);
    if let Some(Value::Bytes(charsmap)) = metadata.get("tokenizer.ggml.precompiled_charsmap")
        && !charsmap.is_empty()
    {
        let normalizer = Precompiled::from(charsmap).map_err(|e| format!("precompiled_charsmap: {e}"))?;
        tokenizer.with_normalizer(Some(normalizer)).map_err(|e| e.to_string())?;
    }
    let flag = |key: &str| metadata.bool(&format!("tokenizer.ggml.{key}")).unwrap_or(true);
    let prepend = if flag("add_space_prefix") { PrependScheme::Always } else { PrependScheme::Never };
    let metaspace = Metaspace::new(SPACE, prepend, true);
    let mut splitters = vec![PreTokenizerWrapper::from(metaspace.clone())];
    if flag("remove_extra_whitespaces") {
        splitters.insert(0, WhitespaceSplit.into());
    }
    tokenizer.with_pre_tokenizer(Some(Sequence::new(splitters)));
    tokenizer.with_decoder(Some(metaspace));
    tokenizer.add_special_tokens(specials(metadata, tokens)).map_err(|e| e.to_string())?;
    if flag("add_eos_token") {
        tokenizer.with_post_processor(Some(append(&tokens[end], end)?));
    }
    Ok(tokenizer)
}

/// The id under `tokenizer.ggml.{key}`, inside the vocabulary.
fn special(metadata: &Metadata, key: &str, default: usize, tokens: &[String]) -> Result<usize, String> {
    let id = match metadata.get(&format!("tokenizer.ggml.{key}")) {
        None => default,
        Some(Value::Int(id)) => usize::try_from(*id).unwrap_or(usize::MAX),
        Some(other) => return Err(format!("{key} is {other:?}, not an integer")),
    };
    if id < tokens.len() {
        Ok(id)
    } else {
        Err(format!("{key} is {id}, but there are {} tokens", tokens.len()))
    }
}

fn unigram(metadata: &Metadata, tokens: &[String], unknown: usize) -> Result<Unigram, String> {
    let Some(Value::Floats(scores)) = metadata.get("tokenizer.ggml.scores") else {
        return Err("it has no array of floats tokenizer.ggml.scores".into());
    };
    if scores.len() != tokens.len() {
        return Err(format!("it has {} tokens, but {} scores", tokens.len(), scores.len()));
    }
    if let Some(i) = scores.iter().position(|score| !score.is_finite()) {
        return Err(format!("the score of token {i} is {}", scores[i]));
    }
    if let Some(i) = tokens.iter().position(String::is_empty) {
        return Err(format!("token {i} is empty"));
    }
    let vocabulary = tokens.iter().cloned().zip(scores.iter().copied()).collect();
    Unigram::from(vocabulary, Some(unknown), false).map_err(|e| e.to_string())
}

/// Control, unknown and user-defined tokens: matched in text before the model sees it.
fn specials(metadata: &Metadata, tokens: &[String]) -> Vec<AddedToken> {
    let types = match metadata.get("tokenizer.ggml.token_type") {
        Some(Value::Ints(types)) => types.as_slice(),
        _ => &[],
    };
    let is_special = |kind: &i64| matches!(*kind, UNKNOWN | CONTROL | USER_DEFINED);
    let named = tokens.iter().zip(types).filter(|(_, kind)| is_special(kind));
    named.map(|(token, _)| AddedToken::from(token.clone(), true)).collect()
}

fn append(token: &str, id: usize) -> Result<TemplateProcessing, String> {
    let id = u32::try_from(id).map_err(|_| "eos_token_id is over 2^32")?;
    TemplateProcessing::builder()
        .try_single(format!("$A {token}"))
        .map_err(|e| e.to_string())?
        .special_tokens(vec![(token.to_owned(), id)])
        .build()
        .map_err(|e| e.to_string())
}
