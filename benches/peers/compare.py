"""Measures dept and its peers in turn, round by round, and prints one Markdown table of medians.

Without more: the embedded model with its adapter sst2, beside transformers. With --uncut DIR, which `dept model fetch
flan-t5-small` made: the whole model, 32 requests at once over 16 adapters of random weights and over one, and one and eight
streams, beside transformers in bf16 and CTranslate2 in int8.

All get the same prompts. Peers are called in their own process, all prompts of a batch at once; dept is asked over HTTP,
streaming, by as many clients as the batch has prompts, and its load generator runs on the same cores.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers

from machine import describe, load_average
from peer import Peer
from random_adapters import equal_budget_rank, write_many
from server import Server
from tasks import MODEL, ROOT, SENTENCES, Measured, Task, requests

SST2 = ("sst2",)
ADAPTERS = 16
# Per round. A batch of 32 is one call for a peer; dept's clients go on, so that few of them run alone at the end.
PEER_REQUESTS = {1: 8, 8: 16, 32: 64}
DEPT_REQUESTS = {1: 32, 8: 64, 32: 256}
MEASURES = [("requests/s", "requests_per_s"), ("tokens/s", "tokens_per_s"), ("first token, ms", "first_token")]

Cell = tuple[Task, int]
Round = dict[tuple[str, int, str], Measured]


@dataclass
class Suite:
    """What is compared: engines by name, dept's server, and the tasks with how many requests are there at once."""

    title: str
    cells: list[Cell]
    peers: dict
    server: Server
    agreement: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dept", type=Path, required=True, help="the binary")
    parser.add_argument("--uncut", type=Path, help="the folder of the whole flan-t5-small")
    parser.add_argument("--prompt-length", type=int, default=20, help="m of the uncut model's random adapters")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5, help="measured ones; one more before them is not counted")
    parser.add_argument("--small", action="store_true", help="one round of few requests: to see that it works")
    parser.add_argument("--json", type=Path, help="write every round's numbers here")
    args = parser.parse_args()
    if args.small:
        args.rounds = 1
    load = load_average()
    with ExitStack() as stack:
        suite = (uncut if args.uncut else embedded)(args, stack)
        rounds = []
        for number in range(args.rounds + 1):
            print(f"round {number} of {args.rounds}", file=sys.stderr, flush=True)
            rounds.append(measure(suite, args.small, number))
        rounds = rounds[1:]
    if args.json:
        args.json.write_text(json.dumps([{" | ".join(map(str, k)): vars(v) for k, v in r.items()} for r in rounds]))
    print(f"{suite.title}; transformers {transformers.__version__}, torch {torch.__version__}; ", end="")
    print(f"median of {args.rounds} rounds. {describe(args.threads, load)}")
    print(suite.agreement + "\n")
    print(table(suite, rounds))
    if args.uncut:
        print("\n" + one_adapter_for_all(rounds))


def embedded(args: argparse.Namespace, stack: ExitStack) -> Suite:
    adapters = ROOT / "adapters"
    peers = {
        f"transformers {name}": Peer(dtype, args.threads, MODEL, adapters)
        for name, dtype in [("f32", torch.float32), ("bf16", torch.bfloat16)]
    }
    server = stack.enter_context(Server(args.dept.resolve(), args.threads))
    label, long = Task("sst2, a label", SST2, 0, 4), Task("32 new tokens", SST2, 32, 32)
    (reference, exact), *others = peers.items()
    agreement = agree(reference, exact, [*others, ("dept", server)], label)
    cells = [(task, at_once) for task in (label, long) for at_once in (1, 32)]
    title = f"{MODEL.name}, adapter sst2 (m = 20, r = 64)"
    return Suite(title, cells, peers, server, agreement)


MIXED = Task("16 adapters, 2 to 8 new tokens", (), 2, 8, drawn=True)
ALIKE = Task("1 adapter, 2 to 8 new tokens", (), 2, 8, drawn=True)
SHORT = Task("2 new tokens", (), 2, 2)
STREAM = Task("32 new tokens", (), 32, 32)


def uncut(args: argparse.Namespace, stack: ExitStack) -> Suite:
    from ctranslate import CTranslate

    model, m = args.uncut.resolve(), args.prompt_length
    adapters = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    names = tuple(write_many(adapters, ADAPTERS, m=m))
    peers = {
        "transformers bf16": Peer(torch.bfloat16, args.threads, model, adapters),
        "CTranslate2 int8": CTranslate(args.threads, model, m),
    }
    server = stack.enter_context(Server(args.dept.resolve(), args.threads, model, adapters))
    exact = Peer(torch.float32, args.threads, model, adapters)
    others = [("transformers bf16", peers["transformers bf16"]), ("dept", server)]
    agreement = agree("transformers f32", exact, others, Task("4 tokens", names[:1], 4, 4))
    cells = [
        (replace(MIXED, adapters=names), 32),
        (replace(ALIKE, adapters=names[:1]), 32),
        (replace(SHORT, adapters=names[:1]), 32),
        *((replace(STREAM, adapters=names[:1]), at_once) for at_once in (1, 8)),
    ]
    shape = f"m = {m}, r = {equal_budget_rank(m, 512)}, s = 256"
    return Suite(f"flan-t5-small uncut, adapters of random weights ({shape})", cells, peers, server, agreement)


def agree(reference: str, exact: Peer, others: list, task: Task) -> str:
    """How many answers are those of the reference."""
    asked = requests(task, 32)
    expected = exact.answers(asked)
    counts = []
    for name, engine in others:
        same = sum(a == b for a, b in zip(engine.answers(asked), expected, strict=True))
        counts.append(f"{name} {same} of {len(asked)}")
    return f"Same answers as {reference}: {', '.join(counts)}."


def measure(suite: Suite, small: bool, number: int) -> Round:
    """Every cell once, the engines side by side."""
    found = {}
    for task, at_once in suite.cells:
        count = at_once if small else PEER_REQUESTS[at_once]
        asked = requests(task, count, number)
        batches = [asked[at : at + at_once] for at in range(0, len(asked), at_once)]
        for name, peer in suite.peers.items():
            # Without adapters to switch, many would be one.
            if not (name.startswith("CTranslate2") and len(task.adapters) > 1):
                found[task.name, at_once, name] = peer.measure(batches)
        count = at_once if small else DEPT_REQUESTS[at_once]
        found[task.name, at_once, "dept"] = suite.server.measure(task, SENTENCES, at_once, count, number)
    return found


def table(suite: Suite, rounds: list[Round]) -> str:
    """Ratios say how many times better dept is: more requests and tokens, sooner first tokens."""
    names = list(suite.peers)
    head = ["task", "at once", "", *names, "dept", *(f"dept / {name.removeprefix('transformers ')}" for name in names)]
    lines = [head, ["---"] * len(head)]
    for task, at_once in suite.cells:
        for label, field in MEASURES:
            *theirs, ours = (median(rounds, (task.name, at_once, name), field) for name in [*names, "dept"])
            if ours is None or not any(theirs):
                continue
            sooner = field == "first_token"
            scale = 1e3 if sooner else 1
            shown = ["-" if value is None else f"{value * scale:.1f}" for value in [*theirs, ours]]
            ratios = [other and (other / ours if sooner else ours / other) for other in theirs]
            words = ["-" if ratio is None else f"{ratio:.1f}x" for ratio in ratios]
            lines.append([task.name, str(at_once), label, *shown, *words])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def one_adapter_for_all(rounds: list[Round]) -> str:
    ours = median(rounds, (MIXED.name, 32, "dept"), "requests_per_s")
    theirs = median(rounds, (ALIKE.name, 32, "transformers bf16"), "requests_per_s")
    return f"dept over 16 adapters beside transformers bf16 with one adapter for all: {ours / theirs:.2f}x requests/s."


def median(rounds: list[Round], cell: tuple[str, int, str], field: str) -> float | None:
    """`None` where it was not measured."""
    values = [getattr(found[cell], field) for found in rounds if cell in found]
    return statistics.median(values) if values and None not in values else None


if __name__ == "__main__":
    main()
