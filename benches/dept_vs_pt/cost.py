"""What DePT and PT cost on a model: training by `dept train`, answers by `dept serve` under `dept bench`."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from shapes import ROOT, Shape, write

sys.path.append(str(ROOT / "benches/peers"))

from server import Server  # noqa: E402

MAX_LENGTH = 256
SOURCE_WORDS = 48
PROMPT_TOKENS, NEW_TOKENS = 64, 4
AT_ONCE = 16
KV = ("--kv-cache-bytes", "512MiB")  # T5-large's longest sequence takes 384


@dataclass(frozen=True)
class Method:
    """`dept` chooses the rank of equal parameters by itself."""

    name: str
    prompt_length: int

    @property
    def flags(self) -> list[str]:
        kind = "pt" if self.name.startswith("PT") else "dept"
        return ["--method", kind, "--prompt-length", str(self.prompt_length)]

    @property
    def adapter(self) -> str:
        return self.name.lower().replace(" ", "-")


METHODS = [Method("PT 100", 100), Method("DePT 60", 60), Method("DePT 40", 40), Method("DePT 20", 20)]


def in_turn(number: int) -> list[Method]:
    """Who comes first changes from round to round."""
    at = number % len(METHODS)
    return METHODS[at:] + METHODS[:at]


def environment() -> dict[str, str]:
    """A user's DEPT_… would change what is measured."""
    return {key: value for key, value in os.environ.items() if not key.startswith("DEPT_")}


def train(dept: Path, flags: list, out: Path) -> tuple[list[dict], float]:
    """The log of a run, and the most memory that it held in MiB."""
    command = [str(word) for word in [dept, "train", *flags, "--out", out]]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)}\n{errors.read().decode()}")
    log = [json.loads(line) for line in (out / "training/log.jsonl").read_text().splitlines()]
    return log, usage.ru_maxrss / 1024


def examples(path: Path, count: int) -> None:
    """Sources of words from the peers' sentences, which the tokenizer knows."""
    words = (ROOT / "benches/peers/sentences.txt").read_text().replace("sentence:", "").split()
    rows = []
    for at in range(count):
        picked = [words[(at * 97 + place * 31) % len(words)] for place in range(SOURCE_WORDS)]
        rows.append({"source": " ".join(picked), "target": ["negative", "positive"][at % 2]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def measure(dept: Path, shape: Shape, threads: int, rounds: int) -> dict[str, dict]:
    """By method: seconds a step, MiB, parameters, and of the server milliseconds and requests a second."""
    with tempfile.TemporaryDirectory() as home:
        home = Path(home)
        write(home / "model", shape)
        examples(home / "data.jsonl", shape.batch * 8)
        found = {method.name: {"steps": [], "mib": []} for method in METHODS}
        for number in range(rounds):
            for method in in_turn(number):
                training(dept, shape, threads, method, home, found[method.name])
        for cached in [False] if shape.kind == "t5" else [False, True]:
            serving(dept, shape, threads, (home, rounds), cached, found)
    return {name: {key: settle(values) for key, values in one.items()} for name, one in found.items()}


def settle(values):
    return statistics.median(values) if isinstance(values, list) else values


def training(dept: Path, shape: Shape, threads: int, method: Method, home: Path, found: dict) -> None:
    """The first step of a process is not counted."""
    flags = ["--model", home / "model", "--data", home / "data.jsonl", *method.flags, "--max-length", MAX_LENGTH]
    flags += ["--batch-size", shape.batch, "--steps", shape.steps + 1, "--train-dtype", "auto", "--checkpoint-every", 0]
    flags += ["--threads", threads, "--truncate", "right", "--restart"]
    folder = home / "adapters" / method.adapter
    log, mib = train(dept, flags, folder)
    print(f"  {method.name}: {mib:.0f} MiB", file=sys.stderr, flush=True)
    steps = [entry for entry in log if "loss" in entry][1:]
    found["steps"] += [entry["seconds"] for entry in steps]
    found["mib"].append(mib)
    found["tokens"] = statistics.mean(entry["tokens"] for entry in steps) / shape.batch
    config = json.loads((folder / "adapter_config.json").read_text())
    rank, d = config.get("r", 0), config["token_dim"]
    found["rank"], found["parameters"] = rank, method.prompt_length * d + rank * (MAX_LENGTH + d) * (rank > 0)


def serving(dept: Path, shape: Shape, threads: int, turns: tuple[Path, int], cached: bool, found: dict[str, dict]) -> None:
    """A request alone, and sixteen at once; the round before the first is not counted."""
    home, rounds = turns
    tag = " (cache)" if cached else ""
    lengths = ["--prompt-tokens", PROMPT_TOKENS, "--output-tokens", NEW_TOKENS]
    for one in found.values():
        one |= {f"latency{tag}": [], f"rate{tag}": []}
    with Server(dept.resolve(), threads, home / "model", home / "adapters", KV, prefix_cache=cached) as server:
        for number in range(rounds + 1):
            for method in in_turn(number):
                flags = ["--adapters", method.adapter, *lengths, "--seed"]
                alone = server.bench(1, max(4, shape.requests // 8), [*flags, number])
                many = server.bench(AT_ONCE, shape.requests, [*flags, 100 + number])
                if number > 0:
                    found[method.name][f"latency{tag}"].append(alone["e2e_ms"]["p50"])
                    found[method.name][f"rate{tag}"].append(many["requests_per_s"])
