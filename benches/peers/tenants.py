"""What many adapters cost: the throughput of 32 sequences over 32 adapters beside 32 over one, on a real server.

The adapters are DePT's (m = 20, r = 53, s = 256) with random weights, made into a temporary folder; the mixes take turns
round by round. Prompts are random, and the server remembers none. Needs Python and nothing else.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from machine import describe, load_average
from random_adapters import write_many
from server import Server
from tasks import MODEL

AT_ONCE = 32
MIXES = {
    "one adapter": ["--pick", "round-robin"],
    "32 adapters in turn": ["--pick", "round-robin"],
    "32 adapters, Zipf": ["--pick", "zipf", "--zipf-exponent", "1"],
}
# With how many requests a mix and round: about as long for each.
LOADS = {
    "32 prompt tokens, 2 to 8 new": (512, ["--prompt-tokens", 32, "--output-tokens", "2-8"]),
    "32 prompt tokens, 32 new": (192, ["--prompt-tokens", 32, "--output-tokens", 32]),
}
FIRST = next(iter(MIXES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dept", type=Path, required=True, help="the binary")
    parser.add_argument("--model", type=Path, default=MODEL, help="a T5 of width 512")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7, help="measured ones; one more before them is not counted")
    parser.add_argument("--small", action="store_true", help="one short round: to see that it works")
    args = parser.parse_args()
    if args.small:
        args.rounds = 1
    load = load_average()
    with tempfile.TemporaryDirectory() as folder:
        names = write_many(Path(folder), AT_ONCE)
        with Server(args.dept.resolve(), args.threads, args.model.resolve(), Path(folder)) as server:
            rounds = [measure(server, names, args.small, number) for number in range(args.rounds + 1)][1:]
    print(f"{args.model.name}, {AT_ONCE} sequences at once; median of {args.rounds} rounds.")
    print(describe(args.threads, load) + "\n")
    print(table(rounds))


def measure(server: Server, names: list[str], small: bool, number: int) -> dict[tuple[str, str], float]:
    """Requests a second of every load and mix. Who comes first changes from round to round."""
    print(f"round {number}", file=sys.stderr, flush=True)
    found = {}
    for load, (requests, shape) in LOADS.items():
        turn = number % len(MIXES)
        mixes = list(MIXES.items())
        for mix, pick in mixes[turn:] + mixes[:turn]:
            adapters = names[:1] if mix == FIRST else names
            flags = ["--adapters", ",".join(adapters), *pick, *shape, "--seed", number]
            found[load, mix] = server.bench(AT_ONCE, AT_ONCE if small else requests, flags)["requests_per_s"]
    return found


def table(rounds: list[dict[tuple[str, str], float]]) -> str:
    """Ratios are of one round each, so that what changes with time falls out of them."""
    lines = ["| load | mix | requests/s | of one adapter's | rounds from, to |", "| --- | --- | --- | --- | --- |"]
    for load in LOADS:
        for mix in MIXES:
            rate = statistics.median(found[load, mix] for found in rounds)
            ratios = sorted(found[load, mix] / found[load, FIRST] for found in rounds)
            spread = "" if mix == FIRST else f"{ratios[0]:.3f}, {ratios[-1]:.3f}"
            lines.append(f"| {load} | {mix} | {rate:.1f} | {statistics.median(ratios):.3f} | {spread} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
