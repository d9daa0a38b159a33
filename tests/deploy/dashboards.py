#!/usr/bin/env python3
"""Every query of every dashboard and rule, on a real Prometheus that scrapes a real server under load.

    tests/deploy/dashboards.py target/release/dept

Fails when a panel is empty, a variable has nothing to choose from or a rule does not evaluate. Needs `prometheus` and `promtool` (Debian:
prometheus) and nothing else.
"""
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

from asking import ROOT, ask, digest, free_port, until, upload

KEY = "dept_" + "5" * 40
POOR = "dept_" + "6" * 40
KEYS = """
[tenants.rich]
scopes = ["generate", "adapters:read", "adapters:write", "admin"]
keys = [{{ name = "r", hash = "sha256:{rich}" }}]
[tenants.poor]
requests_per_minute = 60
request_burst = 3
keys = [{{ name = "p", hash = "sha256:{poor}" }}]
"""


class Load:
    """Clients that make everything happen that a panel shows, until told to stop."""

    def __init__(self, http):
        self.http, self.over = http, threading.Event()
        self.threads = [threading.Thread(target=self.generate, args=(at,), daemon=True) for at in range(16)]
        self.threads.append(threading.Thread(target=self.change, daemon=True))
        self.threads.append(threading.Thread(target=self.beg, daemon=True))
        for thread in self.threads:
            thread.start()

    def generate(self, at):
        names, turn = ["sst2", "trec", "subj", "boolq"], at
        while not self.over.is_set():
            turn += 1
            body = {"adapter": names[turn % 4], "prompt": f"sentence: {turn % 5} " + "a long film . " * 20,
                    "max_tokens": 64, "min_tokens": 64}
            ask(f"http://{self.http}/v1/generate", body, KEY)

    def change(self):
        turn = 0
        while not self.over.is_set():
            turn += 1
            upload(self.http, "changing", "sst2" if turn % 2 else "subj", KEY)
            self.over.wait(0.5)

    def beg(self):
        while not self.over.is_set():
            ask(f"http://{self.http}/v1/generate", {"adapter": "sst2", "prompt": "sentence: fine ."}, POOR)
            self.over.wait(0.1)

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join()


class Prometheus:
    def __init__(self, work, admin):
        self.address = f"127.0.0.1:{free_port()}"
        shutil.copy(ROOT / "deploy/prometheus/dept.rules.yml", work / "dept.rules.yml")
        (work / "prometheus.yml").write_text(
            "global: { scrape_interval: 1s, evaluation_interval: 1s }\nrule_files: [dept.rules.yml]\n"
            f"scrape_configs: [{{ job_name: dept, static_configs: [{{ targets: ['{admin}'] }}] }}]\n")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={work}/prometheus.yml", f"--storage.tsdb.path={work}/tsdb",
             f"--web.listen-address={self.address}", "--log.level=error"])
        until("Prometheus", lambda: ask(f"http://{self.address}/-/ready")[0] == 200)

    def get(self, path):
        status, body = ask(f"http://{self.address}{path}")
        answer = json.loads(body)
        if answer["status"] != "success":
            sys.exit(f"{path}: {status} {answer}")
        return answer["data"]

    def query(self, expression):
        """The series that have a number now."""
        found = self.get("/api/v1/query?" + urllib.parse.urlencode({"query": expression}))["result"]
        return [one for one in found if not math.isnan(float(one["value"][1]))]

    def label_values(self, query):
        """What Grafana offers for a variable: it asks for a label's values, it does not evaluate."""
        asked = re.fullmatch(r"label_values\((.+), *(\w+)\)", query)
        if not asked:
            sys.exit(f"not a query for a label's values: {query}")
        return self.get(f"/api/v1/label/{asked[2]}/values?" + urllib.parse.urlencode({"match[]": asked[1]}))

    def answers(self, query):
        return self.label_values(query) if query.startswith("label_values(") else self.query(query)


def filled(query):
    """A query with the variables put in."""
    for name, value in (("$__rate_interval", "20s"), ("$__range", "1m"), ("$job", "dept"), ("$instance", ".+"), ("$tenant", ".+")):
        query = query.replace(name, value)
    return query


def panels():
    """Dashboard, panel and query of every target."""
    for file in sorted((ROOT / "deploy/grafana").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield file.stem, panel["title"], filled(target["expr"])


def variables():
    """Dashboard, variable and query of every variable that is asked for."""
    for file in sorted((ROOT / "deploy/grafana").glob("*.json")):
        for variable in json.loads(file.read_text())["templating"]["list"]:
            if variable["type"] == "query":
                yield file.stem, f"${variable['name']}", filled(variable["query"]["query"])


def main():
    dept = pathlib.Path(sys.argv[1]).resolve()
    work = pathlib.Path(tempfile.mkdtemp())
    running = []
    try:
        (work / "keys.toml").write_text(KEYS.format(rich=digest(KEY), poor=digest(POOR)))
        shutil.copytree(ROOT / "adapters", work / "adapters", ignore=shutil.ignore_patterns(".store", "*.md", "*.py"))
        server = subprocess.Popen(
            [dept, "serve", "--http=127.0.0.1:0", "--grpc=off", "--admin=127.0.0.1:0", "--api-keys", work / "keys.toml",
             "--adapters", work / "adapters", "--port-file", work / "ports", "--log=error",
             # Too little of everything, so that every shortage shows.
             "--queue-requests=6", "--max-model-len=200", "--kv-cache-bytes=14MiB", "--adapter-host-bytes=900KiB", "--max-num-seqs=8"],
            env=os.environ | {"DEPT_HOME": str(ROOT)})
        running.append(server)
        until("the server", lambda: (work / "ports").is_file() or server.poll() is not None)
        if server.poll() is not None:
            sys.exit(f"the server ended with {server.returncode}: what it said is above")
        ports = json.loads((work / "ports").read_text())
        exposition = urllib.request.urlopen(f"http://{ports['admin']}/metrics").read()
        subprocess.run(["promtool", "check", "metrics"], input=exposition, check=True)
        print("ok  promtool finds nothing in the exposition")
        prometheus = Prometheus(work, ports["admin"])
        running.append(prometheus.process)
        load = Load(ports["http"])
        shown, offered = list(panels()), list(variables())
        wanted = shown + offered
        silent = wanted
        for _ in range(60):  # a rate needs some scrapes, a preemption some luck
            time.sleep(1)
            silent = [one for one in silent if not prometheus.answers(one[2])]
            if not silent:
                break
        rules = [rule for group in prometheus.get("/api/v1/rules")["groups"] for rule in group["rules"]]
        load.stop()
        broken = [rule for rule in rules if rule["health"] != "ok"]
        for board, title, expression in silent:
            print(f"EMPTY {board} / {title}: {expression}")
        for rule in broken:
            print(f"BROKEN {rule['name']}: {rule.get('lastError')}")
        if silent or broken or not rules or not offered:
            sys.exit(1)
        print(f"ok  {len(shown)} queries of the dashboards have an answer, {len(offered)} variables have values, {len(rules)} rules evaluate")
    finally:
        for process in running:
            process.terminate()
            process.wait()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
