//! T5's kind: Unigram over sentencepiece's pieces.

use tokenizers::{
    Tokenizer,
    decoders::metaspace::Metaspace,
    models::unigram::Unigram,
    normalizers::Precompiled,
    pre_tokenizers::{
        PreTokenizerWrapper, metaspace::PrependScheme, sequence::Sequence, whitespace::WhitespaceSplit,
    },
};

use super::{CONTROL, Ends, SPACE, UNKNOWN, USER_DEFINED, Vocabulary};
use crate::backbones::weights::Value;

pub(super) fn build(vocabulary: &Vocabulary<'_>) -> Result<Tokenizer, String> {
    vocabulary.special("eos_token_id", Some(1))?;
    let mut tokenizer = Tokenizer::new(unigram(vocabulary)?);
    if let Some(Value::Bytes(charsmap)) = vocabulary.get("precompiled_charsmap")
        && !charsmap.is_empty()
    {
        let normalizer = Precompiled::from(charsmap).map_err(|e| format!("precompiled_charsmap: {e}"))?;
        tokenizer.with_normalizer(Some(normalizer)).map_err(|e| e.to_string())?;
    }
    let prefixed = vocabulary.flag("add_space_prefix", true);
    let prepend = if prefixed { PrependScheme::Always } else { PrependScheme::Never };
    let metaspace = Metaspace::new(SPACE, prepend, true);
    let mut splitters = vec![PreTokenizerWrapper::from(metaspace.clone())];
    if vocabulary.flag("remove_extra_whitespaces", true) {
        splitters.insert(0, WhitespaceSplit.into());
    }
    tokenizer.with_pre_tokenizer(Some(Sequence::new(splitters)));
    tokenizer.with_decoder(Some(metaspace));
    let added = vocabulary.added(&[UNKNOWN, CONTROL, USER_DEFINED], &[]);
    tokenizer.add_special_tokens(added).map_err(|e| e.to_string())?;
    let ends = Ends { add_bos: false, bos: None, add_eos: true, eos: Some(1) };
    vocabulary.surround(&mut tokenizer, ends)?;
    Ok(tokenizer)
}

fn unigram(vocabulary: &Vocabulary<'_>) -> Result<Unigram, String> {
    let (tokens, scores) = (vocabulary.tokens, vocabulary.scores()?);
    let unknown = vocabulary.special("unknown_token_id", Some(2))?;
    if let Some(i) = tokens.iter().position(String::is_empty) {
        return Err(format!("token {i} is empty"));
    }
    let pieces = tokens.iter().cloned().zip(scores.iter().copied()).collect();
    Unigram::from(pieces, Some(unknown), false).map_err(|e| e.to_string())
}
