use super::*;

#[test]
fn the_file_s_truncation_and_padding_are_left_out() {
    let tokenizer = t5_like();
    assert_eq!(tokenizer.encode("the cat sat a cat").unwrap(), [4, 5, 12, 9, 5, 1]);
    assert_eq!(tokenizer.encode("").unwrap(), [1]);
    assert_eq!(tokenizer.encode_bare("the").unwrap(), [4]);
    assert_eq!(tokenizer.piece(4).as_deref(), Some("▁the"));
    assert_eq!((tokenizer.piece(99), tokenizer.id("▁cat"), tokenizer.vocab_size()), (None, Some(5), 14));
}

#[test]
fn decoding_skips_what_isn_t_text() {
    let tokenizer = t5_like();
    assert_eq!(tokenizer.decode(&[0, 4, 5, 6, 1, 99, u32::MAX, 12]), "the cats sat");
    assert_eq!(tokenizer.decode(&[]), "");
}

#[test]
fn truncation_keeps_the_end_token() {
    let tokenizer = t5_like();
    let ids = vec![4, 5, 12, 9, 1];
    let cut = |limit, side| tokenizer.truncate(ids.clone(), limit, side);
    assert_eq!(cut(5, TruncateSide::Right), ids);
    assert_eq!(cut(3, TruncateSide::Right), [4, 5, 1]);
    assert_eq!(cut(3, TruncateSide::Left), [12, 9, 1]);
    for side in [TruncateSide::Left, TruncateSide::Right] {
        assert_eq!(cut(1, side), [1]);
        assert!(cut(0, side).is_empty());
    }
    // Ids that a client sent without the end token are cut as they are.
    assert_eq!(tokenizer.truncate(vec![4, 5, 12], 2, TruncateSide::Right), [4, 5]);
    assert_eq!(tokenizer.truncate(vec![4, 5, 12], 2, TruncateSide::Left), [5, 12]);
}

#[test]
fn truncation_keeps_a_beginning_token() {
    let cut = |limit, side| truncate(vec![7, 1, 2, 3, 8], limit, side, &[7], &[8]);
    assert_eq!(cut(4, TruncateSide::Right), [7, 1, 2, 8]);
    assert_eq!(cut(4, TruncateSide::Left), [7, 2, 3, 8]);
    assert_eq!(cut(2, TruncateSide::Left), [7, 8]);
    assert_eq!(cut(1, TruncateSide::Right), [8]);
}

#[test]
fn a_broken_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    assert!(matches!(Tokenizer::from_file(&path).unwrap_err(), TokenizerError::Io { .. }));
    for content in
        ["", "{}", "[1]", r#"{"version":"1.0","model":{"type":"Unigram","unk_id":9,"vocab":[["a",0]]}}"#]
    {
        fs::write(&path, content).unwrap();
        let error = Tokenizer::from_file(&path).unwrap_err();
        assert!(matches!(error, TokenizerError::Malformed { .. }), "{content}: {error}");
    }
}

#[test]
fn a_token_has_its_bytes() {
    let tokenizer = t5_like();
    let bytes = |id| tokenizer.token_bytes(id);
    assert_eq!((bytes(5), bytes(6), bytes(11)), (b" cat".to_vec(), b"s".to_vec(), b"  ".to_vec()));
    assert_eq!((bytes(1), bytes(10), bytes(99)), (b"</s>".to_vec(), "é".into(), Vec::new()));
}
