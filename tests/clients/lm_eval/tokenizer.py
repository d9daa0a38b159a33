"""Writes the tokenizer of SmolLM2's GGUF file as a Hugging Face folder, which lm-eval reads: tokenizer.py FILE FOLDER."""

import sys

from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

reader = GGUFReader(sys.argv[1])
text = lambda name: reader.fields[f"tokenizer.ggml.{name}"].contents()  # noqa: E731
tokens, kinds = text("tokens"), text("token_type")
merges = [tuple(merge.split(" ")) for merge in text("merges")]
tokenizer = Tokenizer(models.BPE({token: id for id, token in enumerate(tokens)}, merges))
tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)
tokenizer.decoder = decoders.ByteLevel()
CONTROL = 3
specials = [AddedToken(token, special=True, normalized=False) for token, kind in zip(tokens, kinds) if kind == CONTROL]
tokenizer.add_special_tokens(specials)
named = {name: tokens[int(text(f"{key}_token_id"))] for name, key in [("bos_token", "bos"), ("eos_token", "eos")]}
PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(sys.argv[2])
