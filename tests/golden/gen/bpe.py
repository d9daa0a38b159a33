"""Tiny byte-level BPE tokenizers, each wrapped as its family's tokenizer.json is: GPT-2, SmolLM2, Llama 3, Qwen."""

import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE

from .tokenizer import CORPUS

# As published; \p{L} letters, \p{N} digits. Llama 3 cuts digits into threes, Qwen into single ones.
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nAnswer in one word.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def pre_tokenizer(kind: str):
    """How text is cut before merges, by the name that GGUF files give it."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind in ("gpt-2", "smollm"))
    if kind == "gpt-2":
        return level
    first = {
        "smollm": pre_tokenizers.Digits(individual_digits=True),
        "llama-bpe": pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
        "qwen2": pre_tokenizers.Split(Regex(QWEN2), "isolated"),
    }[kind]
    return pre_tokenizers.Sequence([first, level])


def learn(kind: str, size: int):
    """Vocabulary (256 bytes, then merges; `size` in all) and merges."""
    tok = Tokenizer(BPE())
    tok.pre_tokenizer = pre_tokenizer(kind)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(alphabet), show_progress=False)
    tok.train_from_iterator(CORPUS.splitlines() * 4, trainer)
    model = json.loads(tok.to_str())["model"]
    assert len(model["vocab"]) == size
    return model["vocab"], [tuple(m) for m in model["merges"]]


# Family: GGUF's name of the cut, special tokens, those that are not special but added, and tokenizer_config.json.
FAMILIES = {
    "gpt2": ("gpt-2", ["<|endoftext|>"], [], {
        "add_prefix_space": False, "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "model_max_length": 128,
        "tokenizer_class": "GPT2Tokenizer", "unk_token": "<|endoftext|>",
    }),
    "llama": ("smollm", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], [], {
        "add_prefix_space": False, "bos_token": "<|im_start|>", "chat_template": CHATML, "eos_token": "<|im_end|>",
        "model_max_length": 128, "pad_token": "<|im_end|>", "tokenizer_class": "GPT2Tokenizer", "unk_token": "<|endoftext|>",
    }),
    "llama3": ("llama-bpe", [
        "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], [], {
        "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "model_max_length": 128,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }),
    "qwen2": ("qwen2", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], [], {
        "add_bos_token": False, "add_prefix_space": False, "bos_token": None, "eos_token": "<|im_end|>",
        "model_max_length": 128, "pad_token": "<|endoftext|>", "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
    }),
    "qwen3": ("qwen2", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], ["<think>", "</think>"], {
        "add_bos_token": False, "add_prefix_space": False, "bos_token": None, "eos_token": "<|im_end|>",
        "model_max_length": 128, "pad_token": "<|endoftext|>", "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
    }),
}


def build(family: str, size: int) -> tuple[Tokenizer, dict]:
    """A tokenizer of `size` tokens in all, and its tokenizer_config.json."""
    kind, special, added, config = FAMILIES[family]
    vocab, merges = learn(kind, size - len(special) - len(added))
    if kind == "smollm":  # its special tokens are the first ids, GPT-2's is the last; the others' follow the vocabulary
        vocab = {t: i for i, t in enumerate(special)} | {t: i + len(special) for t, i in vocab.items()}
    elif kind == "gpt-2":
        vocab |= {special[0]: len(vocab)}
    tok = Tokenizer(BPE(vocab, merges, ignore_merges=kind == "llama-bpe"))
    tok.normalizer = normalizers.NFC() if kind == "qwen2" else None
    tok.pre_tokenizer = pre_tokenizer(kind)
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in special])
    tok.add_tokens([AddedToken(t, normalized=False, special=False) for t in added])
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    if kind == "llama-bpe":
        bos = special[0]
        begin = processors.TemplateProcessing(
            single=[bos, "$A"], pair=[bos, "$A", f"{bos}:1", "$B:1"], special_tokens=[(bos, tok.token_to_id(bos))])
        tok.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), begin])
    assert tok.get_vocab_size() == size
    return tok, config


TEXTS = [
    "sentence: a warm and funny film", "a", "", " ", "   ", "\n", " \n\n  x\r\n", "  leading and trailing  ", "two  spaces   and\ttabs",
    "it's WE'LL they'Ve 'tis", "caf\u00e9 cafe\u0301", "\u65e5\u672c\u8a9e \u041f\u0440\u0438\u0432\u0435\u0442", "\U0001F600 \U0001F468\u200d\U0001F469\u200d\U0001F467",
    "1234567 5.50% 3x4", "no\u00a0break\u200bzero", "a\u0000b \ufffd", "word " * 6, "\u0915\u094d\u0937\u093f \u2581x",
]
CHATS = [
    [{"role": "user", "content": "is the river long?"}],
    [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "why?"}, {"role": "assistant", "content": "because"},
     {"role": "user", "content": " and\nthen? "}],
]


def cases(tok: Tokenizer, greedy: list[list[int]], config: dict, template: str | None) -> dict:
    """Ids of texts, what a client must have read after each token, and chats as the template writes them."""
    from transformers import PreTrainedTokenizerFast

    special = [t.content for t in tok.get_added_tokens_decoder().values()]
    texts = [{"text": t, "ids": tok.encode(t).ids} for t in [*TEXTS, f"x{special[-1]}y", f"{special[0]} {special[-1]}"]]
    for t in texts:
        t["decoded"] = tok.decode(t["ids"], skip_special_tokens=True)
        t["decoded_with_specials"] = tok.decode(t["ids"], skip_special_tokens=False)
    streams = [t["ids"] for t in texts if t["text"] in (TEXTS[0], TEXTS[10], TEXTS[11])] + greedy
    stream = [{"ids": i, "prefixes": [tok.decode(i[: k + 1], skip_special_tokens=True) for k in range(len(i))]} for i in streams]
    out = {"encode": texts, "stream": stream}
    if template:
        names = {k: config[k] for k in ("bos_token", "eos_token") if config.get(k)}
        fast = PreTrainedTokenizerFast(tokenizer_object=tok, chat_template=template, **names)
        out["chat"] = []
        for messages in CHATS:
            for prompt in (True, False):
                text = fast.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
                ids = tok.encode(text, add_special_tokens=False).ids
                out["chat"].append({"messages": messages, "add_generation_prompt": prompt, "text": text, "ids": ids})
    return out
