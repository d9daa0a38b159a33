#!/usr/bin/env python3
"""What the dashboards show after some minutes of a real server under load: tests/deploy/pictures.sh draws it.

    pictures.py DEPT FOLDER SECONDS       writes FOLDER/{overview,adapters,tenants}/board.json
"""
import json
import math
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

from asking import ROOT, ask, digest, until, upload
from dashboards import KEY, POOR, Prometheus

BATCH = "dept_" + "7" * 40
KEYS = f"""
[tenants.shop]
scopes = ["generate", "adapters:read", "adapters:write", "admin"]
keys = [{{ name = "s", hash = "sha256:{digest(KEY)}" }}]
[tenants.reports]
keys = [{{ name = "r", hash = "sha256:{digest(BATCH)}" }}]
[tenants.trial]
requests_per_minute = 60
request_burst = 3
keys = [{{ name = "t", hash = "sha256:{digest(POOR)}" }}]
"""
ADAPTERS = ["sst2"] * 6 + ["trec"] * 3 + ["boolq"] * 2 + ["subj", "changing", "changing", "new", None]
STEP = 5  # seconds between two points of a line


class Day:
    """A day in some minutes: clients come and go in waves."""

    def __init__(self, http, seconds):
        self.http, self.began, self.over = http, time.monotonic(), time.monotonic() + seconds
        clients = [threading.Thread(target=self.ask_on, args=(at, KEY if at % 3 else BATCH)) for at in range(16)]
        self.threads = [*clients, threading.Thread(target=self.change), threading.Thread(target=self.try_out)]
        for thread in self.threads:
            thread.start()

    def busy(self):
        """How many clients there are now."""
        return 7 + 6 * math.sin((time.monotonic() - self.began) / 25) + 2 * math.sin((time.monotonic() - self.began) / 7)

    def ask_on(self, number, key):
        draw = random.Random(number)
        while time.monotonic() < self.over:
            if number > self.busy():
                time.sleep(0.3)
                continue
            adapter = draw.choice(ADAPTERS) if draw.random() > 0.01 else "misspelt"
            prompt = f"sentence: {draw.randrange(40)} " + "a long film . " * draw.choice([1, 1, 2, 4, 16])
            tokens = draw.choice([4, 8, 16, 64])
            body = {"prompt": prompt, "max_tokens": tokens, "min_tokens": tokens} | ({"adapter": adapter} if adapter else {})
            status, _ = ask(f"http://{self.http}/v1/generate", body, key)
            if status != 200:  # as a client does that is told to come again later
                time.sleep(1)

    def change(self):
        turn = 0
        while time.monotonic() < self.over:
            turn += 1
            for name in ("changing", "new"):
                upload(self.http, name, "sst2" if turn % 2 else "subj", KEY)
            time.sleep(4)

    def try_out(self):
        while time.monotonic() < self.over:
            ask(f"http://{self.http}/v1/generate", {"adapter": "sst2", "prompt": "sentence: fine ."}, POOR)
            time.sleep(0.4)

    def end(self):
        for thread in self.threads:
            thread.join()


def put_in(expression):
    for name, value in (("$__rate_interval", "20s"), ("$__range", "5m"), ("$job", "dept"), ("$instance", ".+"), ("$tenant", ".+")):
        expression = expression.replace(name, value)
    return expression


def name_of(legend, labels):
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend)


def series(prometheus, panel, start, end):
    held = []
    for target in panel["targets"]:
        found = prometheus.get("/api/v1/query_range?" + urllib.parse.urlencode(
            {"query": put_in(target["expr"]), "start": start, "end": end, "step": STEP}))["result"]
        for one in found:
            points = [(round(at * 1000), float(value)) for at, value in one["values"]]
            held.append({"name": name_of(target["legendFormat"], one["metric"]), "times": [at for at, _ in points],
                         "values": [None if math.isnan(value) else value for _, value in points]})
    return {"series": held}


def table(prometheus, panel, end):
    """As it stood at the fullest of the last moments: between two requests nothing runs."""
    def at(moment):
        return [one for target in panel["targets"] for one in prometheus.get("/api/v1/query?" + urllib.parse.urlencode(
            {"query": put_in(target["expr"]), "time": moment}))["result"]]

    found = max((at(end - back) for back in range(20)), key=lambda rows: sum(map(len, rows[0]["metric"].values())) if rows else -1)
    labels = sorted({label for one in found for label in one["metric"]})
    columns = [{"name": label, "values": [one["metric"].get(label, "") for one in found]} for label in labels]
    return {"columns": [*columns, {"name": "Value", "values": [float(one["value"][1]) for one in found]}]}


def board(prometheus, file, start, end):
    panels = json.loads(file.read_text())["panels"]
    for panel in panels:
        if panel["type"] == "table":
            panel["held"] = table(prometheus, panel, end)
        elif panel["type"] != "row":
            panel["held"] = series(prometheus, panel, start, end)
            if not panel["held"]["series"]:
                sys.exit(f"nothing to see on {file.stem} / {panel['title']}")
    return {"panels": panels, "range": [start * 1000, end * 1000]}


def main():
    dept, folder, seconds = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]), float(sys.argv[3])
    work = pathlib.Path(tempfile.mkdtemp())
    running = []
    try:
        (work / "keys.toml").write_text(KEYS)
        shutil.copytree(ROOT / "adapters", work / "adapters", ignore=shutil.ignore_patterns(".store", "*.md", "*.py"))
        running.append(subprocess.Popen(
            [dept, "serve", "--http=127.0.0.1:0", "--grpc=off", "--admin=127.0.0.1:0", "--api-keys", work / "keys.toml",
             "--adapters", work / "adapters", "--port-file", work / "ports", "--log=error",
             # Small, so that shortages show.
             "--queue-requests=6", "--max-num-seqs=6", "--max-model-len=256", "--kv-cache-bytes=12MiB", "--adapter-host-bytes=1100KiB"],
            env=os.environ | {"DEPT_HOME": str(ROOT)}))
        until("the server", (work / "ports").is_file)
        ports = json.loads((work / "ports").read_text())
        prometheus = Prometheus(work, ports["admin"])
        running.append(prometheus.process)
        start = time.time() + 25  # a rate needs some scrapes
        day = Day(ports["http"], seconds + 25)
        time.sleep(seconds + 20)
        for file in sorted((ROOT / "deploy/grafana").glob("*.json")):
            place = folder / file.stem
            place.mkdir(parents=True, exist_ok=True)
            (place / "board.json").write_text(json.dumps(board(prometheus, file, start, time.time())))
        day.end()
    finally:
        for process in running:
            process.terminate()
            process.wait()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
