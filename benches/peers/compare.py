"""Measures dept and transformers in turn, round by round, and prints one Markdown table of medians.

Both get the same prompts and the same DePT adapter. transformers is called in its own process, all prompts of a batch
at once; dept is asked over HTTP, streaming, by as many clients as the batch has prompts, and its load generator runs on
the same cores.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from pathlib import Path

import torch
import transformers

from peer import Measured, Peer, Task
from server import Server

SENTENCES = Path(__file__).with_name("sentences.txt")
TASKS = [Task("sst2, a label", "sst2", 4, 0), Task("32 new tokens", "sst2", 32, 32)]
AT_ONCE = [1, 32]
# Per round. A batch of 32 is one call for transformers; dept's clients go on, so that few of them run alone at the end.
PEER_REQUESTS = {1: 8, 32: 64}
DEPT_REQUESTS = {1: 32, 32: 256}
MEASURES = [("requests/s", "requests_per_s"), ("tokens/s", "tokens_per_s"), ("first token, ms", "first_token")]

Cell = tuple[str, int, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dept", type=Path, required=True, help="the binary")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5, help="measured ones; one more before them is not counted")
    parser.add_argument("--small", action="store_true", help="few requests a round: to see that it works")
    parser.add_argument("--json", type=Path, help="write every round's numbers here")
    args = parser.parse_args()
    load = [os.getloadavg()[0]]
    peers = {
        "transformers f32": Peer(torch.float32, args.threads),
        "transformers bf16": Peer(torch.bfloat16, args.threads),
    }
    prompts = SENTENCES.read_text().splitlines()
    with Server(args.dept.resolve(), args.threads) as server:
        agreement = agree(peers, server, prompts)
        rounds = []
        for number in range(args.rounds + 1):
            print(f"round {number} of {args.rounds}", file=sys.stderr, flush=True)
            rounds.append(measure(peers, server, prompts, args.small))
        rounds = rounds[1:]
    load.append(os.getloadavg()[0])
    if args.json:
        args.json.write_text(json.dumps([{" | ".join(map(str, k)): vars(v) for k, v in r.items()} for r in rounds]))
    print(describe(args, load))
    print(agreement + "\n")
    print(table(list(peers), rounds))


def agree(peers: dict[str, Peer], server: Server, prompts: list[str]) -> str:
    """How many labels are those of the first peer."""
    names = list(peers)
    expected = peers[names[0]].answers(TASKS[0], prompts)
    others = {name: peers[name].answers(TASKS[0], prompts) for name in names[1:]}
    others["dept"] = server.answers(TASKS[0], prompts)
    same = {name: sum(a == b for a, b in zip(found, expected, strict=True)) for name, found in others.items()}
    counts = ", ".join(f"{name} {count} of {len(prompts)}" for name, count in same.items())
    return f"Same label as {names[0]}: {counts}."


def measure(peers: dict[str, Peer], server: Server, prompts: list[str], small: bool) -> dict[Cell, Measured]:
    """Every cell once, the engines side by side."""
    found = {}
    for task in TASKS:
        for at_once in AT_ONCE:
            count = at_once if small else PEER_REQUESTS[at_once]
            wanted = [prompts[at % len(prompts)] for at in range(count)]
            batches = [wanted[at : at + at_once] for at in range(0, len(wanted), at_once)]
            for name, peer in peers.items():
                found[task.name, at_once, name] = peer.measure(task, batches)
            count = at_once if small else DEPT_REQUESTS[at_once]
            found[task.name, at_once, "dept"] = server.measure(task, SENTENCES, at_once, count)
    return found


def describe(args: argparse.Namespace, load: list[float]) -> str:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    return (
        f"flan-t5-small-en, adapter sst2 (m = 20, r = 64), {args.threads} threads of {os.cpu_count()} cores ({cpu}); "
        f"transformers {transformers.__version__}, torch {torch.__version__}; median of {args.rounds} rounds; "
        f"load average {load[0]:.1f} before, {load[1]:.1f} after."
    )


def table(peers: list[str], rounds: list[dict[Cell, Measured]]) -> str:
    """Ratios say how many times better dept is: more requests and tokens, sooner first tokens."""
    head = ["task", "at once", "", *peers, "dept", *(f"dept / {name.removeprefix('transformers ')}" for name in peers)]
    lines = [head, ["---"] * len(head)]
    for task in TASKS:
        for at_once in AT_ONCE:
            for label, field in MEASURES:
                values = [median(rounds, (task.name, at_once, name), field) for name in [*peers, "dept"]]
                *theirs, ours = values
                sooner = field == "first_token"
                ratios = [other / ours if sooner else ours / other for other in theirs]
                shown = [f"{value * 1e3:.1f}" if sooner else f"{value:.1f}" for value in values]
                lines.append([task.name, str(at_once), label, *shown, *(f"{ratio:.1f}x" for ratio in ratios)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def median(rounds: list[dict[Cell, Measured]], cell: Cell, field: str) -> float:
    return statistics.median(getattr(found[cell], field) for found in rounds)


if __name__ == "__main__":
    main()
