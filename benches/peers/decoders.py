"""dept beside llama.cpp and OpenVINO on SmolLM2-135M-Instruct, all from the same GGUF file; prints a Markdown table of medians a
file, and draws the ratios.

    benches/peers/decoders.sh [--rounds N] [--small]

Engines take turns, round by round; those whose turn it is not are stopped, because threads that wait for work may well wait in
circles. dept and llama-server are asked over HTTP by the same clients, whole answers; OpenVINO is called in a process of its own,
whole batches at once. Prompts are token ids drawn at random, another draw for every request, and nothing is answered from memory:
so all read the same tokens, and no text is compared.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from machine import describe, load_average

sys.path.append(str(Path(__file__).resolve().parents[1]))

from bars import Drawing, top

COLOURS = {"llama.cpp": "#8a8f98", "OpenVINO": "#d9a441", "dept": "#1f4e86"}
# Ids that are words; the first of SmolLM2's are marks of its chats.
WORDS = range(1000, 40000)
PREFILLS = [16, 64, 256, 512]
STREAMS = [1, 8, 16]
# A stream: so many prompt tokens, then so many new ones.
PROMPT, NEW = 16, 64


@dataclass(frozen=True)
class Job:
    """So many requests at once, each of a prompt and its answer in tokens."""

    at_once: int
    prompt: int
    new: int

    @property
    def short(self) -> str:
        return f"prompt of {self.prompt}" if self.new == 1 else f"{self.at_once} at once"

    @property
    def name(self) -> str:
        return f"prefill of {self.prompt} tokens" if self.new == 1 else f"decode, {self.at_once} at once"

    def prompts(self, rng: random.Random) -> list[list[int]]:
        return [rng.sample(WORDS, self.prompt) for _ in range(self.at_once)]

    def rate(self, seconds: float, alone: float) -> float:
        """Tokens a second: of the prompt, or of all but the answers' first tokens once `alone` seconds have gone for those."""
        if self.new == 1:
            return self.prompt / seconds
        return self.at_once * (self.new - 1) / (seconds - alone)


JOBS = [Job(1, length, 1) for length in PREFILLS] + [Job(count, PROMPT, NEW) for count in STREAMS]


class Http:
    """A server that is asked over HTTP. Subclasses say how it starts and what a request is."""

    path: str
    url: str

    def __init__(self, command: list):
        self.folder = tempfile.TemporaryDirectory()
        env = {key: value for key, value in os.environ.items() if not key.startswith(("DEPT_", "LLAMA_"))}
        log = (Path(self.folder.name) / "log").open("w")
        self.process = subprocess.Popen([str(part) for part in command], env=env, cwd=self.folder.name, stdout=log, stderr=log)
        self.clients = ThreadPoolExecutor(max(STREAMS))
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def wait_for(self, url: str) -> None:
        for _ in range(600):
            if self.process.poll() is not None:
                break
            try:
                with self.opener.open(url, timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        self.process.kill()
        sys.exit(f"{self.process.args[0]} does not start:\n{(Path(self.folder.name) / 'log').read_text()[-2000:]}")

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()

    def ask(self, prompt: list[int], new: int) -> None:
        data = json.dumps(self.body(prompt, new)).encode()
        request = urllib.request.Request(self.url + self.path, data, {"content-type": "application/json"})
        with self.opener.open(request, timeout=300) as response:
            self.check(json.load(response), len(prompt), new)

    def seconds(self, prompts: list[list[int]], new: int) -> float:
        began = time.perf_counter()
        list(self.clients.map(lambda prompt: self.ask(prompt, new), prompts))
        return time.perf_counter() - began


class Dept(Http):
    path = "/v1/generate"

    def __init__(self, dept: Path, model: Path, threads: int, free_port: int):
        self.url = f"http://127.0.0.1:{free_port}"
        self.adapters = tempfile.TemporaryDirectory()
        command = [dept, "serve", "--model", model, "--adapters", self.adapters.name, "--threads", threads]
        command += ["--http", f"127.0.0.1:{free_port}", "--grpc", "off", "--admin", "127.0.0.1:0"]
        super().__init__([*command, "--prefix-cache", "false", "--log", "warn"])
        self.wait_for(f"{self.url}/health/ready")

    def body(self, prompt: list[int], new: int) -> dict:
        return {"prompt": prompt, "max_tokens": new, "min_tokens": new}

    def check(self, answer: dict, prompt: int, new: int) -> None:
        usage = answer["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, new), usage


class LlamaServer(Http):
    path = "/completion"

    def __init__(self, binary: Path, model: Path, threads: int, free_port: int):
        self.url = f"http://127.0.0.1:{free_port}"
        slots = max(STREAMS)
        command = [binary, "-m", model, "-t", threads, "-tb", threads, "-np", slots, "-c", 1024 * slots, "--port", free_port]
        super().__init__([*command, "--no-webui", "--cache-ram", 0])
        self.wait_for(f"{self.url}/health")

    def body(self, prompt: list[int], new: int) -> dict:
        # Without the samplers that greedy decoding does not need.
        greedy = {"samplers": ["top_k"], "top_k": 1}
        return {"prompt": prompt, "n_predict": new, "ignore_eos": True, "cache_prompt": False} | greedy

    def check(self, answer: dict, prompt: int, new: int) -> None:
        found = (answer["tokens_evaluated"], answer["tokens_predicted"])
        assert found == (prompt, new), found


class OpenVino:
    """In a process of its own; nothing stands between that process and its pipeline."""

    def __init__(self, model: Path, threads: int):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=answer_openvino, args=(theirs, str(model), threads), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()

    def seconds(self, prompts: list[list[int]], new: int) -> float:
        self.pipe.send((prompts, new))
        return self.pipe.recv()


def answer_openvino(pipe, model: str, threads: int) -> None:
    import numpy
    import openvino
    import openvino_genai

    pipeline = openvino_genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads)
    pipe.send("ready")
    while True:
        prompts, new = pipe.recv()
        ids = openvino.Tensor(numpy.array(prompts, dtype=numpy.int64))
        mask = openvino.Tensor(numpy.ones((len(prompts), len(prompts[0])), dtype=numpy.int64))
        config = openvino_genai.GenerationConfig(max_new_tokens=new, ignore_eos=True, do_sample=False, apply_chat_template=False)
        began = time.perf_counter()
        result = pipeline.generate(openvino_genai.TokenizedInputs(ids, mask), config)
        took = time.perf_counter() - began
        assert all(len(tokens) == new for tokens in result.tokens), [len(tokens) for tokens in result.tokens]
        pipe.send(took)


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def measure(engine, seed: int, tries: int) -> dict[Job, float]:
    """Tokens a second of each job, by the shortest of some tries: what else the machine does only ever costs."""
    rng, found = random.Random(seed), {}
    engine.seconds(JOBS[0].prompts(rng), 1)

    def shortest(job: Job, new: int) -> float:
        return min(engine.seconds(job.prompts(rng), new) for _ in range(tries))

    for job in JOBS:
        found[job] = job.rate(shortest(job, job.new), shortest(job, 1) if job.new > 1 else 0.0)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dept", type=Path, required=True, help="the binary")
    parser.add_argument("--llama-server", type=Path, help="llama.cpp's server")
    parser.add_argument("--openvino", action="store_true", help="OpenVINO GenAI too, which must be installed")
    parser.add_argument("--model", type=Path, required=True, action="append", help="a GGUF file; may come again")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5, help="measured ones; one more before them is not counted")
    parser.add_argument("--plot", type=Path, help="an SVG to draw to")
    parser.add_argument("--small", action="store_true", help="one round: to see that it works")
    args = parser.parse_args()
    rounds, tries = (1, 1) if args.small else (args.rounds, 3)
    panels = {}
    for model in args.model:
        load = load_average()
        found = compare(args, model.resolve(), rounds, tries)
        print(f"{model.name}; tokens/s, median of {rounds} rounds. {describe(args.threads, load)}\n")
        print(table(found) + "\n", flush=True)
        panels[model.stem] = ratios(found)
    if args.plot and not args.small:
        args.plot.write_text(plot(panels))


def compare(args: argparse.Namespace, model: Path, rounds: int, tries: int) -> list[dict[str, dict[Job, float]]]:
    """Every engine's rates, round by round; one more round before them is not counted."""
    with ExitStack() as stack:
        engines = {}
        if args.llama_server:
            engines["llama.cpp"] = stack.enter_context(LlamaServer(args.llama_server.resolve(), model, args.threads, free_port()))
        if args.openvino:
            engines["OpenVINO"] = stack.enter_context(OpenVino(model, args.threads))
        engines["dept"] = stack.enter_context(Dept(args.dept.resolve(), model, args.threads, free_port()))
        for engine in engines.values():
            os.kill(engine.process.pid, signal.SIGSTOP)
            # A stopped process would not hear that it is to end.
            stack.callback(os.kill, engine.process.pid, signal.SIGCONT)
        found = []
        for number in range(rounds + 1):
            print(f"{model.name}: round {number} of {rounds}", file=sys.stderr, flush=True)
            # Another one begins every time.
            order = list(engines)[number % len(engines) :] + list(engines)[: number % len(engines)]
            rates = {name: in_turn(engines[name], number, tries) for name in order}
            found.append({name: rates[name] for name in engines})
        return found[1:]


def in_turn(engine, seed: int, tries: int) -> dict[Job, float]:
    os.kill(engine.process.pid, signal.SIGCONT)
    try:
        return measure(engine, seed, tries)
    finally:
        os.kill(engine.process.pid, signal.SIGSTOP)


def table(rounds: list[dict[str, dict[Job, float]]]) -> str:
    names = list(rounds[0])
    peers = [name for name in names if name != "dept"]
    head = ["", *names, *(f"dept / {peer}" for peer in peers)]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for job in JOBS:
        rates = {name: statistics.median(found[name][job] for found in rounds) for name in names}
        ratios = [statistics.median(found["dept"][job] / found[peer][job] for found in rounds) for peer in peers]
        cells = [job.name, *(f"{rates[name]:.0f}" for name in names), *(f"{ratio:.2f}x" for ratio in ratios)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratios(rounds: list[dict[str, dict[Job, float]]]) -> dict[str, dict[str, float]]:
    """Rates by those of the first engine, medians of the rounds."""
    first = next(iter(rounds[0]))
    ratio = lambda name, job: statistics.median(found[name][job] / found[first][job] for found in rounds)
    return {job.short: {name: ratio(name, job) for name in rounds[0]} for job in JOBS}


def plot(panels: dict[str, dict[str, dict[str, float]]]) -> str:
    engines = next(iter(next(iter(panels.values())).values()))
    drawing = Drawing({name: COLOURS[name] for name in engines})
    drawing.legend()
    for at, (model, groups) in enumerate(panels.items()):
        drawing.bars(top(at), f"{model}: tokens/s on a CPU, {next(iter(engines))}'s are 1", groups)
    return drawing.svg(len(panels), "dept beside other engines")


if __name__ == "__main__":
    main()
