"""A tiny Gemma tokenizer: sentencepiece BPE with byte fallback, wrapped as Gemma's tokenizer.json is."""

import io

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from .bpe import TEXTS
from .tokenizer import CORPUS

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\\n\\n' %}"
    "{% set loop_messages = messages[1:] %}{% else %}{% set first = '' %}{% set loop_messages = messages %}{% endif %}"
    "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user and assistant') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\\n' + (first if loop.first else '') + message['content'] | trim + '<end_of_turn>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)


def train(size: int):
    """The sentencepiece model: special pieces, 256 bytes, merges, characters."""
    blob = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.splitlines() * 4), model_writer=blob, vocab_size=size, model_type="bpe",
        character_coverage=1.0, byte_fallback=True, split_digits=True, add_dummy_prefix=False, remove_extra_whitespaces=False,
        normalization_rule_name="identity", pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>",
        bos_piece="<bos>", unk_piece="<unk>", control_symbols=SPECIAL[4:], num_threads=1, minloglevel=2,
    )
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(blob.getvalue())
    assert len(proto.pieces) == size and [p.piece for p in proto.pieces[:6]] == SPECIAL
    return proto


def build(size: int):
    """(tokenizer, tokenizer_config.json, proto), checked to cut the texts as sentencepiece does."""
    proto = train(size)
    vocab = {p.piece: i for i, p in enumerate(proto.pieces)}
    merges = []
    for p in sorted((p for p in proto.pieces if p.type == 1), key=lambda p: -p.score):
        pairs = [(p.piece[:k], p.piece[k:]) for k in range(1, len(p.piece))]
        merges += sorted((x for x in pairs if x[0] in vocab and x[1] in vocab), key=lambda x: (vocab[x[0]], vocab[x[1]]))
    tok = Tokenizer(BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Replace(" ", "\u2581")
    tok.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tok.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tok.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL])
    tok.post_processor = processors.TemplateProcessing(
        single=["<bos>", "$A"], pair=["<bos>", "$A", "<bos>:1", "$B:1"], special_tokens=[("<bos>", 2)])
    reference = spm.SentencePieceProcessor(model_proto=proto.SerializeToString())
    for text in TEXTS:
        assert tok.encode(text, add_special_tokens=False).ids == reference.encode(text), text
    config = {
        "add_bos_token": True, "add_eos_token": False, "bos_token": "<bos>", "eos_token": "<eos>", "model_max_length": 128,
        "pad_token": "<pad>", "spaces_between_special_tokens": False, "tokenizer_class": "GemmaTokenizer", "unk_token": "<unk>",
    }
    return tok, config, proto
