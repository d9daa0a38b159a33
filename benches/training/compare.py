"""Training with `dept train` beside a PyTorch f32 loop that does the same work: tokens/s and peak memory, in one run.

    venv/bin/python benches/training/compare.py --dept target/release/dept --data train.jsonl [--model FOLDER] [--steps 10] [--rounds 3]

The virtual environment is benches/peers' (requirements.txt there); data is JSONL with source and target. The PyTorch loop pads each
batch to its longest text; both train P, A and B of the same shape on the embedded model, or on one that
models/make_flan_t5_small_en.py made (`--uncut` is the whole flan-t5-small), whose 8-bit weights PyTorch widens to f32. `dept` runs
in f32 (the same work) and through its 8-bit arithmetic. Each round runs all in turn, each in a process of its own; the first step of
a process is not counted; medians over rounds. Tokens are the texts' own, neither prompts nor padding.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/flan-t5-small-en"
M, S = 20, 128


def torch_steps(folder: Path, data: Path, steps: int, batch: int, threads: int, out) -> None:
    """Sends (tokens, seconds) of each step, and this process's peak memory in MiB."""
    sys.path[:0] = [str(ROOT / "adapters"), str(ROOT / "models")]
    import torch
    from dept import Dept
    from reading import load_model, load_tokenizer, pad

    torch.set_num_threads(threads)
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    pairs = [(tokenizer.encode(row["source"]).ids[:S], tokenizer.encode(row["target"]).ids) for row in rows]
    adapter = Dept.initial(model.shared.weight, [37, 19], M, S)
    groups = [{"params": [adapter.prompt], "lr": 0.3}, {"params": [adapter.a, adapter.b], "lr": 5e-3}]
    adam = torch.optim.AdamW(groups, eps=1e-6, weight_decay=0.0)
    times = []
    for step in range(steps):
        chosen = [pairs[(step * batch + i) % len(pairs)] for i in range(batch)]
        began = time.perf_counter()
        ids, mask = pad([source for source, _ in chosen])
        labels, _ = pad([target for _, target in chosen], -100)
        embeds, mask = adapter(model.shared(ids), mask)
        loss = model(inputs_embeds=embeds, attention_mask=mask, labels=labels).loss
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
        adam.step()
        times.append((sum(len(s) + len(t) for s, t in chosen), time.perf_counter() - began))
    out.send((times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def run_torch(args) -> tuple[list, float]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(False)
    process = spawn.Process(target=torch_steps, args=(args.model, args.data, args.steps, args.batch, args.threads, theirs))
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        raise SystemExit("the PyTorch loop ended without a word: its error stands above") from None
    process.join()
    return found


def run_dept(args, dtype: str) -> tuple[list, float]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "adapter"
        command = [
            args.dept, "train", "--model", args.model, "--data", args.data, "--out", out, "--prompt-length", M, "--max-length", S,
            "--steps", args.steps, "--batch-size", args.batch, "--threads", args.threads, "--train-dtype", dtype,
            "--checkpoint-every", "0", "--truncate", "right",
        ]
        quiet = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        process = subprocess.Popen([str(word) for word in command], **quiet)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, "dept train failed"
        log = [json.loads(line) for line in (out / "training/log.jsonl").read_text().splitlines()]
        return [(entry["tokens"], entry["seconds"]) for entry in log if "loss" in entry], usage.ru_maxrss / 1024


def rate(times: list) -> float:
    return sum(tokens for tokens, _ in times[1:]) / sum(seconds for _, seconds in times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dept", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    runs = {
        "PyTorch f32": lambda: run_torch(args),
        "dept f32": lambda: run_dept(args, "f32"),
        "dept 8-bit": lambda: run_dept(args, "auto"),
    }
    found = {name: [] for name in runs}
    before = os.getloadavg()[0]
    for _ in range(args.rounds):
        for name, run in runs.items():
            times, memory = run()
            found[name].append((rate(times), memory))
    median = {name: [statistics.median(column) for column in zip(*rows)] for name, rows in found.items()}
    base = median["PyTorch f32"]
    load = f"load average {before:.1f} before, {os.getloadavg()[0]:.1f} after"
    print(f"{args.model.name}, batches of {args.batch}, m = {M}, {args.threads} threads; {load}\n")
    print("| | tokens/s | of PyTorch's | peak MiB | of PyTorch's |\n| --- | --- | --- | --- | --- |")
    for name, (speed, memory) in median.items():
        print(f"| {name} | {speed:.0f} | {speed / base[0]:.2f} | {memory:.0f} | {memory / base[1]:.2f} |")


if __name__ == "__main__":
    main()
