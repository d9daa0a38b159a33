"""What transformers computes for the decoder-only models; with a proof of DePT's decoder-only rule.

The rule: the input is [P ; E + delta[s - n : s]], P takes positions 0..m-1 and the text starts at m; generated tokens get
nothing. The original layout is [P | s - n pads | text], masked, with positions by the cumulative mask: `check_padded` holds
the one to the other.
"""

import torch

from .adapters import Adapter
from .files import short

S, STEPS = 48, 24
LENGTHS = {"short": 4, "medium": 15, "long": 40}
TEXT = "sentence: a warm and funny film Label :"
MIN_MARGIN = 2e-3
MIN_DISTINCT = 5
CLOSE = 1e-4  # logits, f32 against f32 in another order
WHOLE = ("none-long", "dept-medium")  # all 24 steps on disk; of the others the first


def prompts(tok, forbidden: list[int], rows: int) -> dict[str, list[int]]:
    """Token ids by name; with BOS in front where the tokenizer puts one."""
    rng = torch.Generator().manual_seed(5)
    bos = tok.encode("").ids
    usual = torch.tensor([i for i in range(rows) if i not in set(forbidden)])
    ids = {k: bos + usual[torch.randint(len(usual), (n - len(bos),), generator=rng)].tolist() for k, n in LENGTHS.items()}
    return ids | {"text": tok.encode(TEXT).ids}


def embed(model, ids: list[int], adapter: Adapter | None) -> torch.Tensor:
    """(1, m + n, d): the prompt, then the embeddings (Gemma's are scaled by their own module) plus delta's last n rows."""
    e = model.get_input_embeddings()(torch.tensor(ids))
    if adapter is None:
        return e[None]
    if adapter.delta is not None:
        e = e + adapter.delta[S - len(ids) :]
    return torch.cat([adapter.prompt, e])[None]


def generate(model, embeds, mask=None):
    """Greedy tokens (24,) and raw logits (24, vocab) by transformers' own generate. Given embeddings, it returns new tokens only."""
    mask = torch.ones(embeds.shape[:2], dtype=torch.long) if mask is None else mask
    out = model.generate(
        inputs_embeds=embeds, attention_mask=mask, do_sample=False, max_new_tokens=STEPS, return_dict_in_generate=True,
        output_logits=True,
    )
    return out.sequences[0], torch.cat(out.logits)


def check_uncached(model, embeds, tokens, logits) -> None:
    """The cached steps equal one uncached pass over all tokens."""
    new = model.get_input_embeddings()(tokens[None, :-1])
    whole = model(inputs_embeds=torch.cat([embeds, new], 1), use_cache=False).logits[0, embeds.shape[1] - 1 :]
    torch.testing.assert_close(whole, logits, atol=CLOSE, rtol=0)


def windows(model, mask, positions):
    """Gemma's two masks (1, 1, q, k), the window counted in positions. transformers counts it in slots, so pads widen it."""
    slots = torch.arange(len(mask))
    seen = (slots[None] <= slots[:, None]) & mask.bool()[None]
    near = seen & (positions[:, None] - positions[None] < model.config.sliding_window)
    floor = torch.finfo(torch.float32).min
    return {k: torch.where(v, 0.0, floor)[None, None] for k, v in (("full_attention", seen), ("sliding_attention", near))}


def check_padded(model, ids, adapter: Adapter, tokens, logits) -> None:
    """[P | s - n pads | text], delta on every row, positions by the cumulative mask: the same tokens and logits."""
    m, pads = len(adapter.prompt), S - len(ids)
    e = model.get_input_embeddings()
    text = e(torch.tensor([0] * pads + ids)) + (adapter.delta if adapter.delta is not None else 0.0)
    embeds = torch.cat([adapter.prompt, text])[None]
    mask = torch.cat([torch.ones(m), torch.zeros(pads), torch.ones(len(ids))]).long()
    long_mask = torch.cat([mask, torch.ones(STEPS - 1).long()])
    positions = (long_mask.cumsum(0) - 1).masked_fill(long_mask == 0, 0)
    assert positions[m + pads] == m and positions[-1] == m + len(ids) + STEPS - 2
    gemma = model.config.model_type.startswith("gemma")
    whole = model(
        inputs_embeds=torch.cat([embeds, e(tokens[None, :-1])], 1), use_cache=False, position_ids=positions[None],
        attention_mask=windows(model, long_mask, positions) if gemma else long_mask[None],
    ).logits[0, m + S - 1 :]
    torch.testing.assert_close(whole, logits, atol=CLOSE, rtol=0)
    same, other = generate(model, embeds, mask[None])
    if not gemma:
        assert torch.equal(same, tokens)
        torch.testing.assert_close(other, logits, atol=CLOSE, rtol=0)
    elif m:
        assert (other[0] - logits[0]).abs().max() > 0.01, "Gemma's slots: P falls out of the window behind the pads"


def check_peft(model, folder, ids, tokens) -> None:
    """PEFT loads the folder that it wrote and generates the same tokens."""
    from peft import PeftModel

    wrapped = PeftModel.from_pretrained(model, folder)
    out = wrapped.generate(
        input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False,
        max_new_tokens=STEPS)
    assert torch.equal(out[0, len(ids) :], tokens), f"PEFT agrees on {folder}"


@torch.no_grad()
def run(model, ids, adapter: Adapter | None, forbidden, peft_folder=None, fresh=None):
    """One case: its JSON and the logits (24, vocab)."""
    embeds = embed(model, ids, adapter)
    tokens, logits = generate(model, embeds)
    assert len(tokens) == STEPS and not set(tokens.tolist()) & set(forbidden), "no special token within 24 tokens"
    check_uncached(model, embeds, tokens, logits)
    if adapter is None:
        plain = model.generate(input_ids=torch.tensor([ids]), do_sample=False, max_new_tokens=STEPS)
        assert torch.equal(plain[0, len(ids) :], tokens)
    else:
        check_padded(model, ids, adapter, tokens, logits)
        if adapter.delta is None and peft_folder is not None:
            check_peft(fresh(), peft_folder, ids, tokens)
    top = logits.topk(2).values
    margin = (top[:, 0] - top[:, 1]).min().item()
    assert margin > MIN_MARGIN, f"the greedy choice is never close: {margin}"
    assert len(set(tokens.tolist())) >= MIN_DISTINCT, f"the output varies: {tokens.tolist()}"
    logprobs = torch.log_softmax(logits, -1).gather(1, tokens[:, None])[:, 0]
    case = {
        "prompt_ids": ids, "tokens": tokens.tolist(), "logprobs": [short(x) for x in logprobs.tolist()],
        "min_margin": round(margin, 6),
    }
    return case, logits


def plan(adapters: list[Adapter]):
    """(case name, adapter or none, prompt name) of every case of a model."""
    for p in ("short", "medium", "long", "text"):
        yield f"none-{p}", None, p
    for a in adapters:
        for p in (*LENGTHS, "text") if a.folder == "dept" else LENGTHS:
            yield f"{a.folder}-{p}", a, p


def keep(label: str, logits: torch.Tensor, whole=WHOLE) -> dict[str, torch.Tensor]:
    """The tensors on disk: `<case>.logits` (24 or 1, vocab)."""
    return {f"{label}.logits": logits[: STEPS if label in whole else 1].clone()}


def describe(label: str, adapter: Adapter | None, prompt: str, tok, case: dict) -> dict:
    """The JSON of a case: names first, then what transformers gave."""
    head = {"name": label, "adapter": adapter and adapter.folder, "virtual_tokens": len(adapter.prompt) if adapter else 0}
    text = {"prompt_text": TEXT} if prompt == "text" else {}
    return head | text | case | {"text": tok.decode(case["tokens"], skip_special_tokens=True)}


def check_changed(listed: list[dict]) -> None:
    """Every adapter changes the tokens of every prompt."""
    bare = {str(c["prompt_ids"]): c["tokens"] for c in listed if c["adapter"] is None}
    for case in listed:
        assert case["adapter"] is None or case["tokens"] != bare.get(str(case["prompt_ids"])), case["name"]
