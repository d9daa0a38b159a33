"""Measures which linears need more than 8 bits of activation, against the same weights with f32 activations.

    python models/calibrate.py --data DIR [--model DIR]

DIR holds sst2/stsa.binary.dev and boolq/boolq_dev.jsonl. Each text is continued greedily for 12 tokens in f32;
those tokens are then scored with rounded activations. A row says: how often the best token is the same, and
the mean Kullback-Leibler divergence (thousandths of a nat) of the distribution from f32's.
"""

import argparse
import json
import re
from pathlib import Path

import torch

from reading import activation_bits, load_model, load_tokenizer, quantise_activations

HERE = Path(__file__).parent
DECODER_ROWS = r"lm_head$|decoder.*(SelfAttention\.[qkvo]|EncDecAttention\.[qo]|w[io](_[01])?)$"
GROUPS = {
    "encoder q, k, v": r"encoder.*SelfAttention\.[qkv]$",
    "encoder o": r"encoder.*SelfAttention\.o$",
    "encoder wi_0, wi_1": r"encoder.*wi_[01]$",
    "encoder wo": r"encoder.*wo$",
    "decoder self q, k, v": r"decoder.*SelfAttention\.[qkv]$",
    "decoder self o": r"decoder.*SelfAttention\.o$",
    "decoder cross q": r"decoder.*EncDecAttention\.q$",
    "decoder cross k, v": r"decoder.*EncDecAttention\.[kv]$",
    "decoder cross o": r"decoder.*EncDecAttention\.o$",
    "decoder wi_0, wi_1": r"decoder.*wi_[01]$",
    "decoder wo": r"decoder.*wo$",
    "lm_head": r"lm_head$",
}
# What 16 bits are given to, ever more of it; a decode step waits for memory, so the decoder's own rows pay nothing.
RECIPES = {
    "lm_head": r"lm_head$",
    "lm_head, decoder wo": r"lm_head$|decoder.*wo$",
    "lm_head, decoder wo and self q, k, v": r"lm_head$|decoder.*wo$|decoder.*SelfAttention\.[qkv]$",
    "the decoder less cross k, v": DECODER_ROWS,
    "the decoder less cross k, v; encoder wo": DECODER_ROWS + r"|encoder.*wo$",
    "the decoder less cross k, v; encoder MLP": DECODER_ROWS + r"|encoder.*w[io]",
}
NEW_TOKENS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=HERE / "flan-t5-small-en")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=48, help="texts of each kind")
    args = parser.parse_args()
    torch.set_num_threads(2)

    model, tokenizer = load_model(args.model), load_tokenizer(args.model)
    prompts = [torch.tensor([tokenizer.encode(text).ids]) for text in read_texts(args.data, args.texts)]
    references = [continue_greedily(model, prompt) for prompt in prompts]
    linears = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]

    def report(title: str, bits: dict[str, int]) -> None:
        same, divergence = score(model, prompts, references, bits)
        print(f"{title:56} {same:7.4f} {divergence * 1e3:9.3f}", flush=True)

    print(f"{'activations':56} {'same':>7} {'KL, 1e-3':>9}   over {len(prompts)} texts")
    everywhere = dict.fromkeys(linears, 16)
    report("15 bits everywhere", everywhere)
    report("8 bits everywhere", dict.fromkeys(linears, 8))
    for title, pattern in RECIPES.items():
        report(f"15 bits at {title}", {n: 16 if re.match(pattern, n) else 8 for n in linears})
    for title, pattern in GROUPS.items():
        report(f"8 bits at {title}", {**everywhere, **{n: 8 for n in linears if re.match(pattern, n)}})
    report("as config.json says", activation_bits(args.model, model))


def read_texts(data: Path, each: int) -> list[str]:
    """Prompts of three kinds: to classify a sentence, to sum one up, to answer over a passage."""
    sentences = [line[2:].strip() for line in (data / "sst2/stsa.binary.dev").read_text().splitlines()[: 2 * each]]
    passages = [json.loads(line)["query"][:800] for line in (data / "boolq/boolq_dev.jsonl").read_text().splitlines()[:each]]
    asked = [f"Is this movie review negative or positive? {s}" for s in sentences[:each]]
    return asked + [f"summarize: {s}" for s in sentences[each:]] + passages


@torch.no_grad()
def continue_greedily(model, prompt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(the decoder's input ids (1, n), their next-token log-probabilities in f32 (n, vocabulary))"""
    tokens = model.generate(prompt, max_new_tokens=NEW_TOKENS, do_sample=False)
    ended = tokens[0, -1] == model.config.eos_token_id
    inputs = tokens[:, :-1] if ended else tokens
    return inputs, model(input_ids=prompt, decoder_input_ids=inputs).logits[0].log_softmax(-1)


@torch.no_grad()
def score(model, prompts, references, bits: dict[str, int]) -> tuple[float, float]:
    """(share of positions with the same best token, mean KL from f32) with the activations rounded."""
    hooks = quantise_activations(model, bits)
    same = divergence = positions = 0
    for prompt, (inputs, exact) in zip(prompts, references, strict=True):
        rounded = model(input_ids=prompt, decoder_input_ids=inputs).logits[0].log_softmax(-1)
        same += (rounded.argmax(-1) == exact.argmax(-1)).sum().item()
        divergence += (exact.exp() * (exact - rounded)).sum().item()
        positions += len(exact)
    for hook in hooks:
        hook.remove()
    return same / positions, divergence / positions


if __name__ == "__main__":
    main()
