"""Makes an adapter of tasks.py: exports the data, trains with `dept train`, measures with `dept eval`, completes the card.

    python3 adapters/make.py sst2 --dept target/release/dept --data DATA [--out my-adapters] [--threads 1]

Run from the project's root. DATA is described in adapters/README.md. What `dept train` reads goes into target/tasks/TASK:
train.jsonl, dev.jsonl, test.jsonl and card.toml; bare.jsonl asks the bare model the same in words. A run that was broken off
goes on where it was; --export stops before the training. Needs Python 3.11 or newer, and nothing else.
"""

import argparse
import json
import shlex
import subprocess
from pathlib import Path

from tasks import TASKS, Example, Task

LICENSE = "MIT OR Apache-2.0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dept", type=Path, default=Path("target/release/dept"), help="the binary")
    parser.add_argument("--out", type=Path, default=Path("my-adapters"), help="gets a folder of the task's name")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--export", action="store_true", help="write the data and stop")
    args = parser.parse_args()
    task, folder, out = TASKS[args.task], Path("target/tasks") / args.task, args.out / args.task
    export(task, args.data, folder)
    if args.export:
        return
    subprocess.run([args.dept, *train(task, folder, out), "--threads", str(args.threads)], check=True)
    result = measure(task, folder, out, lambda *flags: ask(args.dept, args.threads, flags))
    print(json.dumps(result, indent=2))
    complete(out / "card.toml", result)


def export(task: Task, data: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    splits = task.splits(data)

    def write(name: str, rows: list[dict]) -> None:
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    def bare(example: Example) -> dict:
        return {"source": task.instruct(example), "target": example.target}

    for split, examples in splits.items():
        write(split, [example.fields | {"target": example.target} for example in examples])
    write("bare", [bare(example) for example in splits["test"]])
    labels = ", ".join(f"{json.dumps(said)} = {json.dumps(shown)}" for said, shown in task.labels.items())
    card = {
        "description": json.dumps(task.description),
        "template": json.dumps(task.template),
        "labels": f"{{ {labels} }}",
        "max_tokens": "4",
        "over_length": json.dumps(task.over_length),
        "license": json.dumps(LICENSE),
    }
    (folder / "card.toml").write_text("".join(f"{key} = {value}\n" for key, value in card.items()))


def train(task: Task, folder: Path, out: Path) -> list[str]:
    """The command, but for threads, which do not change what comes out."""
    flags = ["train", "--data", folder / "train.jsonl", "--eval-data", folder / "dev.jsonl", "--card", folder / "card.toml"]
    flags += ["--init-from", f"text:{task.init_text}", "--max-length", task.max_length, "--train-dtype", "auto"]
    flags += ["--truncate", task.over_length, *shlex.split(task.recipe), "--out", out]
    return [str(flag) for flag in flags]


def ask(dept: Path, threads: int, flags: tuple) -> dict:
    """What `dept eval` finds."""
    command = [dept, "eval", *flags, "--json", "--threads", threads]
    output = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output)


def measure(task: Task, folder: Path, out: Path, ask) -> dict:
    """The card's result: greedy answers that are the label's text and nothing more; the bare model by its likeliest label."""
    adapted = ("--adapter", out, "--data", folder / "test.jsonl")
    said, likely = ask(*adapted), ask(*adapted, "--by", "likelihood")
    bare = ask("--card", folder / "card.toml", "--data", folder / "bare.jsonl", "--by", "likelihood", "--truncate")
    found = {
        "dataset": task.dataset,
        "split": f"test ({task.split_note})",
        "metric": said["metric"],
        "value": said["value"],
        "interval_95": said["interval_95"],
        "n": said["n"],
        "auc": likely.get("auc"),
        "majority": said["majority"],
        "zero_shot": bare["value"],
        "zero_shot_auc": bare.get("auc"),
        "command": shlex.join(["dept", "eval", *map(str, adapted)]),
    }
    return {key: value for key, value in found.items() if value is not None}


def complete(card: Path, result: dict) -> None:
    """Puts the result in place of the dev split's, which stands last. JSON's strings, numbers and arrays are TOML's too."""
    head = card.read_text().partition("[[results]]")[0]
    rows = "".join(f"{key} = {json.dumps(value)}\n" for key, value in result.items())
    card.write_text(f"{head}[[results]]\n{rows}")


if __name__ == "__main__":
    main()
