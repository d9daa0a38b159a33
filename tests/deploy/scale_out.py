#!/usr/bin/env python3
"""Three servers behind a proxy: what one learns all serve, one dies under load, and what routing by the adapter is worth.

    tests/deploy/scale_out.sh target/release/dept
"""
import argparse
import http.client
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from asking import ask, until, upload
from fleet import Proxy, replicas, store

TASKS = ("sst2", "trec", "subj", "boolq")
HELD = 20  # adapters that a replica has memory for


def expect(what, holds, found=""):
    if not holds:
        sys.exit(f"BAD {what}: {found}")
    print(f"ok  {what}", flush=True)


def served_by_all(fleet):
    body = {"adapter": "new", "inputs": {"sentence": "a warm , funny and moving film ."}}
    upload(fleet[0].address, "new", "sst2")
    answers = [ask(f"http://{replica.address}/v1/generate", body) for replica in fleet]
    said = {(status, json.loads(answer).get("label"), json.loads(answer).get("adapter_version")) for status, answer in answers}
    expect("an adapter uploaded to one is served by all, at once", len(said) == 1 and min(said)[:2] == (200, "positive"), answers)


class Client(threading.Thread):
    """Asks one thing after the other until told to stop, and again what failed."""

    def __init__(self, number, address, wanted, over):
        super().__init__(daemon=True)
        self.number, self.address, self.wanted, self.over = number, address, wanted, over
        self.outcomes, self.wrong, self.slowest = {}, [], 0.0

    def run(self):
        turn = 0
        while not self.over.is_set():
            turn += 1
            question = self.wanted[(turn * 7 + self.number) % len(self.wanted)]
            streamed = turn % 3 == 0
            for attempt in range(20):
                name = f"{self.number}-{turn}-{attempt}{'-s' if streamed else ''}"
                began = time.monotonic()
                self.outcomes[name], text = self.once(name, question["body"] | {"stream": streamed})
                self.slowest = max(self.slowest, time.monotonic() - began)
                if self.outcomes[name] == "answered":
                    if text != question["text"]:
                        self.wrong.append((name, text, question["text"]))
                    break
            else:
                self.wrong.append((name, "never answered", question["text"]))

    def once(self, name, body):
        """How it ended, and the text."""
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            connection.request("POST", "/v1/generate", json.dumps(body), {"content-type": "application/json", "x-request-id": name})
            response = connection.getresponse()
            held = response.read()
        except (http.client.HTTPException, OSError) as error:
            return f"cut off ({type(error).__name__})", None
        finally:
            connection.close()
        if response.status != 200:
            return f"status {response.status}", None
        if not body["stream"]:
            return "answered", json.loads(held)["text"]
        frames = [frame.removeprefix("data: ") for frame in held.decode().split("\n\n") if frame.startswith("data: ")]
        if not frames or frames[-1] != "[DONE]":
            return "cut off (no [DONE])", None
        return "answered", json.loads(frames[-2])["text"]


def reference(proxy, names):
    """Questions and what every replica should answer."""
    wanted = []
    for at, name in enumerate(names):
        body = {"adapter": name, "prompt": f"sentence: {'a long and winding film . ' * (1 + at % 5)}", "max_tokens": 24, "min_tokens": 24}
        status, answer = ask(f"http://{proxy.address}/v1/generate", body)
        expect(f"{name} answers", status == 200, answer) if status != 200 else None
        wanted.append({"body": body, "text": json.loads(answer)["text"]})
    return wanted


def driven(fleet, proxy, wanted, seconds):
    """Clients ask on while one of three is killed, is away and comes back; the clients, and the proxy's lines while it was away."""
    over, victim = threading.Event(), fleet[1]
    clients = [Client(number, proxy.address, wanted, over) for number in range(12)]
    for client in clients:
        client.start()
    time.sleep(seconds)
    victim.kill()
    dead = len(proxy.lines())
    time.sleep(seconds)
    victim.start()
    victim.ready()
    back = len(proxy.lines())
    until("the replica that came back serves", lambda: any(line["replica"] == victim.name for line in proxy.lines()[back:]))
    time.sleep(seconds)
    over.set()
    for client in clients:
        client.join()
    # What it had answered may be told a moment later.
    return clients, proxy.lines()[dead + len(clients):back]


def killed(fleet, work, names, seconds):
    """SIGKILL for one of three under load: how each request ended."""
    with Proxy(work, fleet) as proxy:
        clients, away = driven(fleet, proxy, reference(proxy, names), seconds)
    outcomes = {name: outcome for client in clients for name, outcome in client.outcomes.items()}
    lines = {line["id"]: line for line in proxy.lines() if line["id"] in outcomes}
    wrong = [one for client in clients for one in client.wrong]
    expect("every question has its answer, and the same whoever gave it", not wrong, wrong[:3])
    expect("the proxy accounts for every request", lines.keys() == outcomes.keys(), set(outcomes) ^ set(lines))
    late = [line for line in away if line["replica"] == fleet[1].name]
    expect("a replica that is away gets nothing", not late, late[:3])
    failed = {name: outcome for name, outcome in outcomes.items() if outcome != "answered"}
    begun = [name for name in failed if name.endswith("-s") and failed[name].startswith("cut off")]
    expect("only streams that had begun are lost, and seen to be", len(begun) == len(failed), failed)
    again = [name for name, line in lines.items() if int(line["retries"]) and outcomes[name] == "answered"]
    questions = len({name.rsplit("-", 2 if name.endswith("-s") else 1)[0] for name in outcomes})
    print(f"""
| one of three replicas killed and started again | |
| --- | --- |
| questions, requests for them | {questions}, {len(outcomes)} |
| answered at once | {len(outcomes) - len(again) - len(failed)} |
| cut off before an answer had begun, asked again by the proxy, answered by another replica | {len(again)} |
| streams cut off in the midst, seen as such, asked again by the client | {len(failed)} |
| questions without an answer, answers that differ from a quiet replica's | 0, 0 |
| slowest request | {max(client.slowest for client in clients):.1f} s |
""", flush=True)


def counted(fleet):
    """Loads and requests of adapters by replica, so far."""
    return [(replica.counted("dept_adapter_loads_total"), replica.counted("dept_adapter_requests_total")) for replica in fleet]


def routed(dept, fleet, proxy, names, pick, options, seed):
    """Hit ratio and latencies of one run of `dept bench`."""
    bench = [dept, "bench", f"--server=http://{proxy.address}", f"--adapters={','.join(names)}", f"--pick={pick}", "--stream=false",
             "--max-tokens=4", "--warmup=0"]
    subprocess.run([*bench, "--requests=300", "--concurrency=4", "--seed=1000"], check=True, capture_output=True)
    before, began = counted(fleet), len(proxy.lines())
    done = subprocess.run([*bench, f"--requests={options.requests}", f"--rate={options.rate}", f"--seed={seed}"], check=True,
                          capture_output=True, text=True)

    def lines():
        return [line for line in proxy.lines()[began:] if line["adapter"] != "-"]

    until("the proxy's lines", lambda: len(lines()) >= options.requests)
    failed = [line for line in lines() if line["status"] != "200"]
    if failed:
        sys.exit(f"BAD {len(failed)} requests fail: {failed[:5]}\n{done.stdout}")
    after = counted(fleet)
    loads, asked = (sum(new[at] - old[at] for old, new in zip(before, after)) for at in (0, 1))
    times = sorted(int(line["ms"]) for line in lines())
    shares = [round(100 * (new[1] - old[1]) / asked) for old, new in zip(before, after)]
    return {"hits": 1 - loads / asked, "p50": times[len(times) // 2], "p95": times[len(times) * 95 // 100], "shares": shares}


def compared(dept, fleet, work, names, options):
    print(f"{len(names)} adapters, {HELD} fit a replica, three replicas, {options.requests} requests at {options.rate} a second, "
          f"{options.rounds} rounds in turn (medians):\n\n"
          "| drawn | routed | in memory already | p50 | p95 | requests by replica |\n| --- | --- | --- | --- | --- | --- |")
    for pick in ("uniform", "zipf"):
        runs = {"random": [], "adapter": []}
        for seed in range(options.rounds):
            for routing, held in runs.items():
                with Proxy(work, fleet, routing) as proxy:
                    held.append(routed(dept, fleet, proxy, names, pick, options, seed))
        medians = {routing: {key: statistics.median(run[key] for run in held) for key in ("hits", "p50", "p95")}
                   for routing, held in runs.items()}
        for routing, middle in medians.items():
            print(f"| {pick} | {routing} | {middle['hits']:.3f} | {middle['p50']:.0f} ms | {middle['p95']:.0f} ms "
                  f"| {' / '.join(map(str, runs[routing][-1]['shares']))} % |", flush=True)
        if medians["adapter"]["hits"] <= medians["random"]["hits"]:
            sys.exit("BAD routing by the adapter finds no more of them in memory")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dept", type=pathlib.Path)
    parser.add_argument("moto")
    parser.add_argument("--adapters", type=int, default=48)
    parser.add_argument("--requests", type=int, default=1200)
    parser.add_argument("--rate", type=float, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="of load before, while and after one is away")
    options = parser.parse_args()
    names = [f"task{at:02}" for at in range(options.adapters)]
    with tempfile.TemporaryDirectory() as held:
        work = pathlib.Path(held)
        with store(options.moto, work):
            with replicas(options.dept, work, ["--threads=1"]) as fleet:
                served_by_all(fleet)
                for at, name in enumerate(names):
                    upload(fleet[at % 3].address, name, TASKS[at % 4])
                size = json.loads(ask(f"http://{fleet[0].address}/v1/adapters/{names[0]}")[1])["bytes"]
                killed(fleet, work, names, options.seconds)
            with replicas(options.dept, work, ["--threads=1", f"--adapter-host-bytes={HELD * size + size // 2}"]) as fleet:
                compared(options.dept, fleet, work, names, options)


if __name__ == "__main__":
    main()
