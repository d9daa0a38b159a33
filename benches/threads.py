"""What more threads give: prompts and streams by a server of one thread, of two, of four, up to all cores, in turns.

    python3 benches/threads.py --dept target/release/dept [MODEL ...] [--rounds 5]

Without a MODEL it is the embedded one. All servers of a model are up at once; one of them works at a time, the others sleep. A request
is token ids drawn at random, so nothing comes from memory. Prints medians, and the median of each round's ratios to one thread. Needs
Python 3.11 or newer and Linux, and nothing else.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benches/peers"))

from machine import describe, load_average  # noqa: E402
from server import Server  # noqa: E402

ASK = urllib.request.build_opener(urllib.request.ProxyHandler({}))
IDS = range(100, 12_000)  # tokens of all models here
# Name, streams at once, tokens of a prompt, new tokens of each. What a stream makes counts, or what a prompt holds.
LOADS = (("a prompt of 256 tokens", 1, 256, 1), ("1 stream", 1, 16, 64), ("8 streams", 8, 16, 64))


def ask(url: str, prompt: int, new: int) -> None:
    body = {"prompt": random.choices(IDS, k=prompt), "max_tokens": new, "min_tokens": new}
    request = urllib.request.Request(f"{url}/v1/generate", json.dumps(body).encode(), {"content-type": "application/json"})
    usage = json.load(ASK.open(request))["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, new), usage


def rate(url: str, streams: int, prompt: int, new: int) -> float:
    """Tokens a second, of the answers or, where these are one token, of the prompts."""
    with ThreadPoolExecutor(streams) as clients:
        began = time.monotonic()
        for done in [clients.submit(ask, url, prompt, new) for _ in range(streams)]:
            done.result()
        return streams * (new if new > 1 else prompt) / (time.monotonic() - began)


def measure(dept: Path, model: Path, threads: list[int], rounds: int) -> None:
    with ExitStack() as stack:
        none = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = [stack.enter_context(Server(dept, count, model, none)) for count in threads]
        for name, *load in LOADS:
            turns = []
            for _ in range(rounds + 1):
                order = random.sample(range(len(servers)), len(servers))
                found = {index: rate(servers[index].url, *load) for index in order}
                turns.append([found[index] for index in range(len(servers))])
            del turns[0]  # the first round warms up
            rates = [f"{median(turn[index] for turn in turns):.0f}" for index in range(len(servers))]
            ratios = [f"{median(turn[index] / turn[0] for turn in turns):.2f}x" for index in range(1, len(servers))]
            print("| " + " | ".join([model.stem, name, *rates, *ratios]) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dept", type=Path, required=True, help="the binary")
    parser.add_argument("models", nargs="*", type=Path, help="folders or files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="one round: to see that it works")
    args = parser.parse_args()
    cores, load = len(os.sched_getaffinity(0)), load_average()
    threads = sorted({min(1 << power, cores) for power in range(cores.bit_length() + 1)})
    if len(threads) == 1:
        print("One core: there is nothing to compare.")
        return
    head = ["model", "load", *(f"{count}, tokens/s" for count in threads), *(f"{count} / 1" for count in threads[1:])]
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for model in args.models or [ROOT / "models/flan-t5-small-en"]:
        measure(args.dept.resolve(), model.resolve(), threads, 1 if args.small else args.rounds)
    print(f"\n{describe(cores, load)}")


if __name__ == "__main__":
    main()
