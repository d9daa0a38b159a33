"""dept over HTTP: a server of its own on free ports, loaded by `dept bench`."""

import json
import os
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from tasks import MODEL, ROOT, Measured, Request, Task

START_TIMEOUT_S = 60


class Server:
    """Remembers no prompts unless it is told to: sentences come again and again, and no other engine answers from memory."""

    def __init__(
        self,
        dept: Path,
        threads: int,
        model: Path = MODEL,
        adapters: Path = ROOT / "adapters",
        flags: tuple[str, ...] = (),
        prefix_cache: bool = False,
    ):
        self.dept = dept
        self.folder = tempfile.TemporaryDirectory()
        ports = Path(self.folder.name) / "ports.json"
        command = [dept, "serve", "--model", model, "--adapters", adapters, "--threads", str(threads)]
        command += ["--http", "127.0.0.1:0", "--grpc", "off", "--admin", "127.0.0.1:0", "--port-file", ports, "--log", "warn"]
        command += ["--prefix-cache", str(prefix_cache).lower(), *flags]
        # A dept.toml or DEPT_… of the user would change what is measured.
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("DEPT_")}
        began = time.monotonic()
        self.process = subprocess.Popen(command, env=self.env, cwd=self.folder.name)
        until = began + START_TIMEOUT_S
        while not ports.exists():
            if self.process.poll() is not None or time.monotonic() > until:
                raise SystemExit("dept serve does not start")
            time.sleep(0.01)
        self.started_in = time.monotonic() - began
        self.url = f"http://{json.loads(ports.read_text())['http']}"

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()

    def answers(self, requests: list[Request]) -> list[str]:
        """Of requests that differ in their prompts only."""
        first = requests[0]
        body = {
            "adapter": first.adapter,
            "prompt": [request.prompt for request in requests],
            "max_tokens": first.max_tokens,
            "min_tokens": first.min_tokens,
        }
        request = urllib.request.Request(
            f"{self.url}/v1/generate", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request) as response:
            return [result["text"] for result in json.load(response)["results"]]

    def measure(self, task: Task, prompts: Path, concurrency: int, requests: int, seed: int = 0) -> Measured:
        flags = ["--adapters", ",".join(task.adapters), "--prompt-file", prompts, "--seed", seed]
        if task.drawn:
            flags += ["--output-tokens", f"{task.min_tokens}-{task.max_tokens}"]
        else:
            flags += ["--max-tokens", task.max_tokens, "--min-tokens", task.min_tokens]
        found = self.bench(concurrency, requests, flags)
        first_token = found["ttft_ms"]["p50"] / 1e3
        return Measured(found["requests_per_s"], found["output_tokens_per_s"], first_token)

    def bench(self, concurrency: int, requests: int, flags: list) -> dict:
        """What `dept bench` reports of a closed loop."""
        report = Path(self.folder.name) / "report.json"
        command = [self.dept, "bench", "--server", self.url, "--concurrency", concurrency, "--requests", requests]
        command += ["--warmup", 0, "--json", report, *flags]
        subprocess.run([str(part) for part in command], check=True, env=self.env, stdout=subprocess.DEVNULL)
        found = json.loads(report.read_text())
        if found["requests"]["failed"]:
            raise SystemExit(f"requests failed: {found['requests']['failed']}")
        return found
