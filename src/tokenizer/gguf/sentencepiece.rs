//! Gemma's and the first Llamas' kind: sentencepiece's byte pairs over characters, with bytes for what the vocabulary lacks.
//! A file holds no merges: a token's score says when the pair that makes it is merged.

use tokenizers::{
    Tokenizer,
    decoders::{
        DecoderWrapper, byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence as Decoders, strip::Strip,
    },
    models::bpe::{BPE, Vocab},
    normalizers::{NormalizerWrapper, Prepend, Replace, Sequence as Normalizers},
};

use super::{CONTROL, Ends, SPACE, UNKNOWN, UNUSED, USER_DEFINED, Vocabulary};

pub(super) fn build(vocabulary: &Vocabulary<'_>) -> Result<Tokenizer, String> {
    let unknown = vocabulary.special("unknown_token_id", Some(0))?;
    let mut pieces = Vocab::with_capacity(vocabulary.tokens.len());
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        // A broken text may repeat another; the first keeps its id.
        if vocabulary.kind(id) != UNUSED {
            pieces.entry(token.clone()).or_insert(id as u32);
        }
    }
    let merges = merges(vocabulary, &pieces)?;
    let model = BPE::builder()
        .vocab_and_merges(pieces, merges)
        .unk_token(vocabulary.tokens[unknown].clone())
        .fuse_unk(true)
        .byte_fallback(true)
        .build()
        .map_err(|e| e.to_string())?;
    let mut tokenizer = Tokenizer::new(model);
    let prefixed = vocabulary.flag("add_space_prefix", true);
    tokenizer.with_normalizer(Some(normalizer(prefixed)?)).map_err(|e| e.to_string())?;
    tokenizer.with_decoder(Some(decoder(prefixed)?));
    for token in vocabulary.added(&[UNKNOWN, CONTROL], &[USER_DEFINED]) {
        let added =
            if token.special { tokenizer.add_special_tokens([token]) } else { tokenizer.add_tokens([token]) };
        added.map_err(|e| e.to_string())?;
    }
    let ends = Ends { add_bos: true, bos: Some(1), add_eos: false, eos: Some(2) };
    vocabulary.surround(&mut tokenizer, ends)?;
    Ok(tokenizer)
}

fn normalizer(prefixed: bool) -> Result<Normalizers, String> {
    let space = Replace::new(" ", SPACE.to_string()).map_err(|e| e.to_string())?;
    let mut steps: Vec<NormalizerWrapper> = vec![space.into()];
    if prefixed {
        steps.insert(0, Prepend::new(SPACE.to_string()).into());
    }
    Ok(Normalizers::new(steps))
}

fn decoder(prefixed: bool) -> Result<Decoders, String> {
    let space = Replace::new(SPACE.to_string(), " ").map_err(|e| e.to_string())?;
    let mut steps: Vec<DecoderWrapper> =
        vec![DecoderWrapper::Replace(space), ByteFallback::new().into(), Fuse::new().into()];
    if prefixed {
        steps.push(Strip::new(' ', 1, 0).into());
    }
    Ok(Decoders::new(steps))
}

/// Every pair of tokens that makes a token, that of the highest score first.
fn merges(vocabulary: &Vocabulary<'_>, pieces: &Vocab) -> Result<Vec<(String, String)>, String> {
    let scores = vocabulary.scores()?;
    let mut ranked = Vec::new();
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        // Only normal tokens are made by merging.
        if vocabulary.kind(id) != 1 {
            continue;
        }
        let first = ranked.len();
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&l), Some(&r)) = (pieces.get(left), pieces.get(right)) {
                ranked.push((scores[id], l, r, left, right));
            }
        }
        ranked[first..].sort_by_key(|&(_, l, r, ..)| (l, r));
    }
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    Ok(ranked.into_iter().map(|(.., left, right)| (left.to_owned(), right.to_owned())).collect())
}
