"""A tiny T5 tokenizer: a Unigram vocabulary trained by sentencepiece, wrapped as T5's tokenizer.json is."""

import io
import tempfile
from pathlib import Path

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

EXTRA_IDS = 4
CORPUS = """sentence: a warm and funny film that never loses its way
sentence: the story is dull and the acting is worse than the script
question: is the river longer than the road? passage: the river is long, the road is short.
sentence1: he said it was true. sentence2: it was not true.
premise: two men are walking by the sea hypothesis: the men are outside
the cat sat on the mat and the dog lay by the door, in the sun
one of the best films of the year; it's clever, quick and kind
a café in Zürich sells naïve art and über-strong coffee (5 francs)
why do we go there? because the light is good at 7:30 in the morning!
"no," she said - "not now, not ever." 1 2 3 4 6 8 9 0
What A Good Day To Be Here. I think So. Yes & No
"""

# A small stand-in for sentencepiece's nmt_nfkc table (which is 240 KB): spaces, wide letters, a ligature, one composition.
RULES = {
    "\t": " ", "\n": " ", "\r": " ", "\u00a0": " ", "\u3000": " ", "\u200b": "",
    "\ufb01": "fi", "\u2019": "'", "\u201c": '"', "\u201d": '"', "e\u0301": "\u00e9", "\u2026": "...",
    **{chr(0xFF21 + i): chr(0x41 + i) for i in range(26)},
    **{chr(0xFF41 + i): chr(0x61 + i) for i in range(26)},
}


def train(pieces: int):
    """A sentencepiece model of `pieces` pieces with T5's special ids: pad 0, eos 1, unk 2."""
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "rules.tsv"
        lines = [f"{' '.join(f'{ord(c):X}' for c in a)}\t{' '.join(f'{ord(c):X}' for c in b)}" for a, b in RULES.items()]
        rules.write_text("\n".join(lines) + "\n")
        blob = io.BytesIO()
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS.splitlines() * 4), model_writer=blob, vocab_size=pieces, model_type="unigram",
            character_coverage=1.0, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, num_threads=1, minloglevel=2,
            normalization_rule_tsv=str(rules),
        )
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(blob.getvalue())
    return proto


def build(proto) -> Tokenizer:
    """The tokenizer.json of a T5: Precompiled, WhitespaceSplit and Metaspace, </s> appended, sentinels at the end."""
    sentinels = [f"<extra_id_{i}>" for i in reversed(range(EXTRA_IDS))]
    vocab = [(p.piece, p.score) for p in proto.pieces] + [(s, 0.0) for s in sentinels]
    tok = Tokenizer(Unigram(vocab, unk_id=2, byte_fallback=False))
    tok.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always", split=True),
    ])
    tok.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="always", split=True)
    special = ["<pad>", "</s>", "<unk>", *sentinels]
    tok.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in special])
    tok.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", 1)])
    return tok


def config() -> dict:
    """tokenizer_config.json, in the fields of the published T5 models."""
    return {
        "additional_special_tokens": [f"<extra_id_{i}>" for i in range(EXTRA_IDS)],
        "eos_token": "</s>", "extra_ids": EXTRA_IDS, "model_max_length": 512,
        "pad_token": "<pad>", "tokenizer_class": "T5Tokenizer", "unk_token": "<unk>",
    }


TEXTS = [
    "sentence: a warm and funny film", "a", "", " ", "   ", "\n", "\t\n \r\n", "the river is long, the road is short.",
    "  leading and trailing  ", "two  spaces   and\ttabs", "line one\nline two\n\nline four", "caf\u00e9", "cafe\u0301",
    "Z\u00fcrich \u00fcber na\u00efve", "\u65e5\u672c\u8a9e\u306e\u6587", "\u041f\u0440\u0438\u0432\u0435\u0442 the road", "emoji \U0001F600 and \U0001F468\u200d\U0001F469\u200d\U0001F467",
    "\U0001F600", "\uff34\uff28\uff25 \uff52\uff4f\uff41\uff44", "\ufb01lm \ufb01ne", "no\u00a0break", "zero\u200bwidth", "\u201cquoted\u201d it\u2019s\u2026",
    "<extra_id_0> is <extra_id_3>", "</s> inside <pad> text <unk>", "\u2581already \u2581marked", "UPPER lower MiXeD", "1234567890 5.50%",
    "word " * 30, "supercalifragilistic", "a\u0000b", "\ufffd \U0010FFFF", "e\u0301e\u0301\u0308 \u0915\u094d\u0937\u093f",
]


def cases(tok: Tokenizer, greedy: list[list[int]]) -> dict:
    """Ids of texts, and what a client must have read after each token of a sequence (specials skipped)."""
    def prefixes(ids):
        return [tok.decode(ids[: i + 1], skip_special_tokens=True) for i in range(len(ids))]

    texts = [{"text": t, "ids": tok.encode(t).ids} for t in TEXTS]
    for t in texts:
        t["decoded"] = tok.decode(t["ids"], skip_special_tokens=True)
        t["decoded_with_specials"] = tok.decode(t["ids"], skip_special_tokens=False)
    streams = [t["ids"] for t in texts if 3 <= len(t["ids"]) <= 20] + greedy
    return {"encode": texts, "stream": [{"ids": ids, "prefixes": prefixes(ids)} for ids in streams]}
