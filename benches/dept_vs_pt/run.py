"""DePT (m = 60, 40, 20) beside prompt tuning of 100 rows at equal numbers of trained parameters: training time and memory,
latency and throughput through the server, and quality. Prints tables and draws docs/dept-vs-pt.svg.

    python3 benches/dept_vs_pt/run.py --dept target/release/dept [--data DATA] [--models T5-small,…] [--tasks sst2,…] [--small]

Cost is measured on models of random weights in real shapes (speed does not depend on them), quality on the embedded model and
needs DATA as adapters/README.md describes it. What is compared takes turns. Figures go into --results as they are found, and what
is there already is not measured again, so that a long run may be broken off. --small shows in a minute that all of it works: its
figures mean nothing. Needs Python 3.11 or newer, and nothing else.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import cost
import quality
from render import page, picture
from shapes import ROOT, SHAPES, TINY

sys.path.append(str(ROOT / "benches/peers"))

from machine import describe, load_average  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dept", type=Path, required=True, help="the binary")
    parser.add_argument("--data", type=Path, help="without it, cost alone")
    parser.add_argument("--models", default=",".join(SHAPES), help="of the cost; empty for none")
    parser.add_argument("--tasks", default=",".join(quality.TASKS), help="of the quality")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=ROOT / "target/dept_vs_pt.json")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/dept-vs-pt.svg", help="the plot")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    dept = args.dept.resolve()
    names = [name for name in args.models.split(",") if name]
    tasks = [task for task in args.tasks.split(",") if task]
    if unknown := {*names} - {*SHAPES} | {*tasks} - {*quality.TASKS}:
        parser.error(f"no model or task is called {', '.join(sorted(unknown))}")
    models, budget, rounds = {name: SHAPES[name] for name in names}, quality.USUAL, args.rounds
    if args.small:
        models, budget, rounds = TINY, quality.SMALL, 1
        args.results, args.out = ROOT / "target/dept_vs_pt-small.json", ROOT / "target/dept_vs_pt-small.svg"
        args.results.unlink(missing_ok=True)
    results = json.loads(args.results.read_text()) if args.results.exists() else {"cost": {}, "quality": {}, "machine": []}

    def keep() -> None:
        args.results.parent.mkdir(parents=True, exist_ok=True)
        args.results.write_text(json.dumps(results, indent=1))

    def note(name: str, load: float) -> None:
        results["machine"].append(f"{name}: {describe(args.threads, load)}")
        keep()

    for name, shape in models.items():
        if name not in results["cost"]:
            print(f"cost: {name}", file=sys.stderr, flush=True)
            load = load_average()
            results["cost"][name] = cost.measure(dept, shape, args.threads, rounds) | {"batch": shape.batch}
            note(name, load)
    for task in tasks if args.data else []:
        found = results["quality"].setdefault(task, {})
        if sum(map(len, found.values())) < budget.seeds * len(cost.METHODS):
            print(f"quality: {task}", file=sys.stderr, flush=True)
            load = load_average()
            quality.measure(dept, args.data, task, args.threads, budget, found, keep)
            note(task, load)
    print(page(results))
    args.out.write_text(picture(results))


if __name__ == "__main__":
    main()
