"""What transformers computes for every model, adapter and prompt; with checks that the rules used are the reference's."""

import torch
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from .adapters import S, Adapter
from .files import short

STEPS = 24
LENGTHS = {"short": 5, "medium": 20, "long": 80, "past": 150}
TEXT = "sentence: a warm and funny film"
MIN_MARGIN = 2e-3  # logits: far more than the 1e-4 that an exact engine may be off
MIN_DISTINCT = 5


def prompts(pieces: int, tok) -> dict[str, list[int]]:
    """Token ids by name, </s> counted. `past` is longer than S and than the farthest bucket: for the bare model only."""
    rng = torch.Generator().manual_seed(3)
    ids = {k: torch.randint(3, pieces - 4, (n - 1,), generator=rng).tolist() + [1] for k, n in LENGTHS.items()}
    return ids | {"text": tok.encode(TEXT).ids}


def embed(model, ids: list[int], adapter: Adapter | None) -> torch.Tensor:
    """Encoder input (1, m + n, d): the prompt, then the embeddings plus the first n rows of delta."""
    e = model.shared(torch.tensor(ids))
    if adapter is None:
        return e[None]
    if adapter.delta is not None:
        e = e + adapter.delta[: len(ids)]
    return torch.cat([adapter.prompt, e])[None]


def cache() -> EncoderDecoderCache:
    """A cache that grows; the one that transformers makes counts the encoder's layers and fails on a deeper decoder."""
    return EncoderDecoderCache(DynamicCache(), DynamicCache())


def generate(model, embeds, mask=None):
    """Greedy tokens (24,) and raw logits (24, vocab) by transformers' own generate."""
    out = model.generate(
        inputs_embeds=embeds, attention_mask=mask, do_sample=False, num_beams=1, max_new_tokens=STEPS,
        past_key_values=cache(), return_dict_in_generate=True, output_logits=True,
    )
    tokens = out.sequences[0, 1:]
    assert len(tokens) == STEPS and 1 not in tokens, "no </s> within 24 tokens"
    return tokens, torch.cat(out.logits)


def check_teacher_forced(model, encoder, tokens, logits) -> None:
    """The cached steps equal one uncached pass over all tokens."""
    start = torch.cat([torch.tensor([model.config.decoder_start_token_id]), tokens[:-1]])[None]
    whole = model(encoder_outputs=BaseModelOutput(last_hidden_state=encoder), decoder_input_ids=start, use_cache=False).logits[0]
    torch.testing.assert_close(whole, logits, atol=4e-5, rtol=0)


def check_padded(model, ids, adapter: Adapter, encoder, tokens, logits) -> None:
    """The rule `row i for token i, pads dropped` equals DePT's own layout: padded to S on the right, delta on every row."""
    m, n = len(adapter.prompt), len(ids)
    padded = torch.tensor(ids + [0] * (S - n))
    embeds = torch.cat([adapter.prompt, model.shared(padded) + adapter.delta])[None]
    mask = (torch.arange(m + S) < m + n).long()[None]
    full = model.encoder(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(full[:, : m + n], encoder, atol=1e-5, rtol=0)
    same, other = generate(model, embeds, mask)
    assert torch.equal(same, tokens)
    torch.testing.assert_close(other, logits, atol=4e-5, rtol=0)


def check_peft(model, folder, ids, adapter: Adapter, tokens) -> None:
    """PEFT loads the folder that it wrote and generates the same tokens."""
    from peft import PeftModel

    wrapped = PeftModel.from_pretrained(model, folder)
    task = {} if adapter.task is None else {"task_ids": torch.tensor([adapter.task])}
    ids = torch.tensor([ids])
    out = wrapped.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=STEPS,
        past_key_values=cache(), **task)
    assert torch.equal(out[0, 1:], tokens), f"PEFT agrees on {folder.name}"


@torch.no_grad()
def run(model, ids, adapter: Adapter | None, peft_folder=None, fresh=None):
    """One case: its JSON and its tensors."""
    embeds = embed(model, ids, adapter)
    encoder = model.encoder(inputs_embeds=embeds).last_hidden_state
    tokens, logits = generate(model, embeds)
    check_teacher_forced(model, encoder, tokens, logits)
    if adapter is None:
        plain = model.generate(input_ids=torch.tensor([ids]), do_sample=False, max_new_tokens=STEPS, past_key_values=cache())
        assert torch.equal(plain[0, 1:], tokens)
    elif adapter.delta is not None:
        check_padded(model, ids, adapter, encoder, tokens, logits)
    elif peft_folder is not None:
        check_peft(fresh(), peft_folder, ids, adapter, tokens)
    top = logits.topk(2).values
    margin = (top[:, 0] - top[:, 1]).min().item()
    assert margin > MIN_MARGIN, f"the greedy choice is never close: {margin}"
    assert len(set(tokens.tolist())) >= MIN_DISTINCT, f"the output varies: {tokens.tolist()}"
    logprobs = torch.log_softmax(logits, -1).gather(1, tokens[:, None])[:, 0]
    case = {
        "prompt_ids": ids, "tokens": tokens.tolist(), "logprobs": [short(x) for x in logprobs.tolist()],
        "min_margin": round(margin, 6),
    }
    return case, {"encoder": encoder[0], "logits": logits}


def plan(adapters: list[Adapter]):
    """(case name, adapter or none, prompt name) of every case of a model."""
    for p in ("short", "medium", "long", "past", "text"):
        yield f"none-{p}", None, p
    for a in adapters:
        name = a.folder if not a.task else f"{a.folder}-task{a.task}"
        lengths = ("short", "medium", "long", "text") if a.delta is not None else ("medium", "long")
        for p in lengths:
            yield f"{name}-{p}", a, p


# Kept whole: all 24 steps, so that a drift shows where it starts. Others keep the first step, and long or text prompts
# no encoder output, so that the files stay small.
WHOLE = ("none-medium", "dept-medium", "dept-long")
NO_ENCODER = ("pt-long", "ptuning-long", "mpt-long", "mpt-task2-long", "none-text", "lowrank-text")


def keep(label: str, arrays: dict) -> dict[str, torch.Tensor]:
    """The tensors on disk: `<case>.encoder` (m + n, d) and `<case>.logits` (24 or 1, vocab)."""
    steps = STEPS if label in WHOLE else 1
    out = {f"{label}.logits": arrays["logits"][:steps].clone()}
    return out if label in NO_ENCODER else out | {f"{label}.encoder": arrays["encoder"]}


def describe(label: str, adapter: Adapter | None, prompt: str, tok, case: dict) -> dict:
    """The JSON of a case: names first, then what transformers gave."""
    head = {
        "name": label, "adapter": adapter and adapter.folder, "twins": adapter.twins if adapter else [],
        "task": adapter and adapter.task, "virtual_tokens": len(adapter.prompt) if adapter else 0,
    }
    text = {"prompt_text": TEXT} if prompt == "text" else {}
    return head | text | case | {"text": tok.decode(case["tokens"], skip_special_tokens=True)}


def check_changed(listed: list[dict]) -> None:
    """Every adapter changes the tokens of every prompt."""
    bare = {str(c["prompt_ids"]): c["tokens"] for c in listed if c["adapter"] is None}
    for case in listed:
        assert case["adapter"] is None or case["tokens"] != bare[str(case["prompt_ids"])], case["name"]
