"""dept over HTTP: a server of its own on free ports, loaded by `dept bench`."""

import json
import os
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from peer import MODEL, ROOT, Measured, Task

START_TIMEOUT_S = 60


class Server:
    def __init__(self, dept: Path, threads: int):
        self.dept = dept
        self.folder = tempfile.TemporaryDirectory()
        ports = Path(self.folder.name) / "ports.json"
        command = [dept, "serve", "--model", MODEL, "--adapters", ROOT / "adapters", "--threads", str(threads)]
        command += ["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--port-file", ports, "--log", "warn"]
        # A dept.toml or DEPT_… of the user would change what is measured.
        env = {key: value for key, value in os.environ.items() if not key.startswith("DEPT_")}
        self.process = subprocess.Popen(command, env=env, cwd=self.folder.name)
        until = time.monotonic() + START_TIMEOUT_S
        while not ports.exists():
            if self.process.poll() is not None or time.monotonic() > until:
                raise SystemExit("dept serve does not start")
            time.sleep(0.05)
        self.url = f"http://{json.loads(ports.read_text())['http']}"

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()

    def answers(self, task: Task, prompts: list[str]) -> list[str]:
        body = {
            "adapter": task.adapter,
            "prompt": prompts,
            "max_tokens": task.max_tokens,
            "min_tokens": task.min_tokens,
        }
        request = urllib.request.Request(
            f"{self.url}/v1/generate", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request) as response:
            return [result["text"] for result in json.load(response)["results"]]

    def measure(self, task: Task, prompts: Path, concurrency: int, requests: int) -> Measured:
        report = Path(self.folder.name) / "report.json"
        command = [self.dept, "bench", "--server", self.url, "--adapters", task.adapter, "--prompt-file", prompts]
        command += ["--concurrency", concurrency, "--requests", requests, "--warmup", 0]
        command += ["--max-tokens", task.max_tokens, "--min-tokens", task.min_tokens, "--json", report]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        found = json.loads(report.read_text())
        if found["requests"]["failed"]:
            raise SystemExit(f"requests failed: {found['requests']['failed']}")
        first_token = found["ttft_ms"]["p50"] / 1e3
        return Measured(found["requests_per_s"], found["output_tokens_per_s"], first_token)
