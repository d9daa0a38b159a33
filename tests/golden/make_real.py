"""Makes `real/smollm2.json`: what transformers computes on the real SmolLM2-135M-Instruct, dequantised to f32.

    dept model fetch smollm2-135m-instruct --to DIR
    venv/bin/python make_real.py DIR/SmolLM2-135M-Instruct.Q4_1.gguf

Greedy continuations of `real/prompts.txt`, and the perplexity of `real/text.txt`; both texts were written for this.
Takes a minute on two cores. The requirements are those of `make.py`.
"""

import argparse
import hashlib
import os
import sys
import warnings
from pathlib import Path

sys.dont_write_bytecode = True
os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from gen.files import write_json  # noqa: E402

HERE = Path(__file__).resolve().parent / "real"
NEW_TOKENS = 24
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    file = parser.parse_args().gguf.resolve()
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    # The reader dequantises every tensor to f32.
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    prompts = [as_prompt(line) for line in (HERE / "prompts.txt").read_text().splitlines()]
    text = (HERE / "text.txt").read_text()
    ids = tokenizer.encode(text, add_special_tokens=False)
    write_json(HERE / "smollm2.json", {
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "transformers": transformers.__version__,
        "text": {"file": "text.txt", "tokens": len(ids), "ids": ids, "perplexity": perplexity(model, ids)},
        "prompts": [case(model, tokenizer, prompt) for prompt in prompts],
    })


def as_prompt(line: str) -> str:
    """A line that begins with `chat:` is a user's turn, any other one is text to go on with."""
    return CHAT.format(line.removeprefix("chat:").strip()) if line.startswith("chat:") else line


@torch.inference_mode()
def perplexity(model, ids: list[int]) -> float:
    """exp of the mean negative log-likelihood of every token but the first, each after all that stand before it."""
    logits = model(torch.tensor([ids])).logits[0, :-1].double()
    found = logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])
    return round(float(torch.exp(-found.mean())), 6)


@torch.inference_mode()
def case(model, tokenizer, prompt: str) -> dict:
    """Greedy tokens, going on past an end token. `min_margin` is the smallest gap of the two best logits."""
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    tokens, margins, past, rows = [], [], None, ids
    for _ in range(NEW_TOKENS):
        out = model(torch.tensor([rows]), past_key_values=past, use_cache=True)
        best = out.logits[0, -1].topk(2)
        margins.append(float(best.values[0] - best.values[1]))
        tokens.append(int(best.indices[0]))
        past, rows = out.past_key_values, tokens[-1:]
    return {
        "prompt": prompt,
        "ids": ids,
        "tokens": tokens,
        "text": tokenizer.decode(tokens),
        "min_margin": round(min(margins), 4),
    }


if __name__ == "__main__":
    main()
