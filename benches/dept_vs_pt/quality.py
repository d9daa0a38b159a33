"""How well DePT and PT learn a task on the embedded model, over several seeds."""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cost import METHODS, Method, environment, in_turn, train
from shapes import ROOT

MODEL = ROOT / "models/flan-t5-small-en"

# Where P starts: as adapters/tasks.py has it.
TASKS = {
    "sst2": "Is this movie review sentence negative or positive?",
    "trec": "Does this question ask for a description, an entity, a human, a location or a number?",
}


@dataclass(frozen=True)
class Budget:
    steps: int
    batch: int
    seeds: int
    # Test examples that are asked.
    tests: int


USUAL = Budget(steps=200, batch=16, seeds=3, tests=500)
SMALL = Budget(steps=2, batch=2, seeds=1, tests=8)


def measure(dept: Path, data: Path, task: str, threads: int, budget: Budget, found: dict[str, list[float]], keep) -> None:
    """Accuracies of the last adapter on the test split, a seed each, by method. The rates are `dept train`'s defaults. What
    `found` has is not measured again, and `keep` is called for each that it has not had."""
    folder = ROOT / "target/tasks" / task
    export = [sys.executable, ROOT / "adapters/make.py", task, "--data", data.resolve(), "--export"]
    subprocess.run(export, check=True, cwd=ROOT)
    with tempfile.TemporaryDirectory() as home:
        for seed in range(budget.seeds):
            for method in in_turn(seed):
                scores = found.setdefault(method.name, [])
                if len(scores) > seed:
                    continue
                out = Path(home) / f"{method.adapter}-{seed}"
                learn(dept, folder, task, threads, (method, seed, budget), out)
                score = accuracy(dept, folder, threads, budget, out)
                print(f"  {task} seed {seed} {method.name}: {score:.3f}", file=sys.stderr, flush=True)
                scores.append(score)
                keep()


def learn(dept: Path, folder: Path, task: str, threads: int, run: tuple[Method, int, Budget], out: Path) -> None:
    method, seed, budget = run
    flags = ["--model", MODEL, "--data", folder / "train.jsonl", "--card", folder / "card.toml", "--init-from", f"text:{TASKS[task]}"]
    flags += [*method.flags, "--max-length", 128, "--steps", budget.steps, "--batch-size", budget.batch]
    flags += ["--seed", seed, "--train-dtype", "auto", "--checkpoint-every", 0, "--threads", threads]
    train(dept, flags, out)


def accuracy(dept: Path, folder: Path, threads: int, budget: Budget, out: Path) -> float:
    command = [dept, "eval", "--model", MODEL, "--adapter", out, "--data", folder / "test.jsonl", "--limit", budget.tests, "--json"]
    command = [str(word) for word in [*command, "--threads", threads]]
    found = subprocess.run(command, check=True, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(found.stdout)["value"]
