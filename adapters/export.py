"""Writes a task of tasks.py as `dept train` reads it: train.jsonl, dev.jsonl, test.jsonl and card.toml.

    python adapters/export.py sst2 --data DATA --out target/tasks/sst2
    dept train --data target/tasks/sst2/train.jsonl --eval-data target/tasks/sst2/dev.jsonl \
        --card target/tasks/sst2/card.toml --out my-adapters/sst2

Needs nothing but Python.
"""

import argparse
import json
from pathlib import Path

from tasks import TASKS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    task = TASKS[args.task]
    args.out.mkdir(parents=True, exist_ok=True)
    for split, examples in task.load(args.data).items():
        lines = (json.dumps(example.fields | {"target": example.target}) for example in examples)
        (args.out / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    labels = ", ".join(f"{json.dumps(said)} = {json.dumps(shown)}" for said, shown in task.labels.items())
    card = {
        "description": json.dumps(task.description),
        "template": json.dumps(task.template),
        "labels": f"{{ {labels} }}",
        "max_tokens": "4",
        "over_length": json.dumps(task.over_length),
    }
    (args.out / "card.toml").write_text("".join(f"{key} = {value}\n" for key, value in card.items()))


if __name__ == "__main__":
    main()
