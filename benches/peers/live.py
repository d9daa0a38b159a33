"""What adapters that come and go cost: uploads, swaps, cold loads, more adapters than memory holds, very many names.

One real server on a store in a temporary folder. Adapters are DePT's of 148 kB (m = 20, r = 35, s = 256) with random weights;
they differ in one number, which is enough to be another adapter. Needs Python and nothing else.

    python3 benches/peers/live.py --dept target/release/dept                      # some minutes
    python3 benches/peers/live.py --dept target/release/dept --requests 5000 --rounds 20    # the whole, an hour
"""

import argparse
import hashlib
import http.client
import json
import os
import statistics
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import random_adapters
from machine import describe, load_average
from server import Server
from tasks import MODEL

WIDTH, ROWS, RANK = 512, 20, 35
AT_ONCE = 32
SHAPE = ["--prompt-tokens", 32, "--output-tokens", "2-8"]
# Streams that run while adapters are swapped, and how often that is done.
STREAMS, SWAPS_PER_S = 8, 10
BOUNDARY = "an-adapter"
# How much of the adapters memory holds, and how that is said.
MEMORY = {"all": "all", "half": "half", "tenth": "a tenth"}
# Requests that are not counted.
WARM = 5


class Files:
    """The multipart bodies of adapters that differ in a number."""

    def __init__(self) -> None:
        self.config, self.weights = random_adapters.files(1, WIDTH, ROWS, RANK)
        self.data = 8 + struct.unpack("<Q", self.weights[:8])[0]

    def body(self, number: int) -> bytes:
        weights = bytearray(self.weights)
        struct.pack_into("<f", weights, self.data, 1 + number / 1e6)
        parts = [("config", self.config), ("weights", bytes(weights))]
        body = b""
        for name, content in parts:
            head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"; filename="f"\r\n\r\n'
            body += head.encode() + content + b"\r\n"
        return body + f"--{BOUNDARY}--\r\n".encode()

    def bytes_in_memory(self) -> int:
        return len(self.weights) - self.data


class Client:
    """One connection that stays."""

    def __init__(self, server: Server, key: str | None = None):
        self.headers = {"authorization": f"Bearer {key}"} if key else {}
        self.connection = http.client.HTTPConnection(urlsplit(server.url).netloc)

    def call(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        status, found = self.answer(method, path, body, kind)
        if status >= 300:
            raise SystemExit(f"{method} {path}: {status} {found.decode()}")
        return found

    def answer(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> tuple[int, bytes]:
        self.connection.request(method, path, body, self.headers | ({"content-type": kind} if body else {}))
        response = self.connection.getresponse()
        return response.status, response.read()

    def missed(self, adapter: str) -> float:
        """Milliseconds of a request for an adapter that there is not, or not for this client."""
        body = json.dumps({"adapter": adapter, "prompt": "x"}).encode()
        began = time.perf_counter()
        status, found = self.answer("POST", "/v1/generate", body)
        took = (time.perf_counter() - began) * 1e3
        if status != 404:
            raise SystemExit(f"{adapter}: {status} {found.decode()}, not 404")
        return took

    def upload(self, name: str, body: bytes) -> None:
        self.call("PUT", f"/v1/adapters/{name}", body, f"multipart/form-data; boundary={BOUNDARY}")

    def first_token(self, adapter: str, number: int) -> float:
        """Milliseconds until the first token of an answer."""
        prompt = [4 + (number * 31 + at * 7) % 190 for at in range(32)]
        body = {"adapter": adapter, "prompt": prompt, "max_tokens": 2, "min_tokens": 2, "stream": True}
        began = time.perf_counter()
        self.connection.request("POST", "/v1/generate", json.dumps(body), {"content-type": "application/json"})
        response = self.connection.getresponse()
        line = response.readline()
        found = (time.perf_counter() - began) * 1e3
        if b'"token"' not in line:
            raise SystemExit(f"no token: {line.decode()}")
        response.read()
        return found


def main() -> None:
    args = arguments()
    load = load_average()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(args, Path(folder))
        rows = [row for part in args.only or PARTS for row in PARTS[part](run)]
    print(f"{args.model.name}, adapters of {run.files.bytes_in_memory() // 1000} kB, {args.adapters} of them.")
    print(describe(args.threads, load) + "\n")
    print("| what | measured | beside | costs |\n| --- | --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dept", type=Path, required=True, help="the binary")
    parser.add_argument("--model", type=Path, default=MODEL, help="a T5 of width 512")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--adapters", type=int, default=10_000, help="that random requests name; twice as many names")
    parser.add_argument("--requests", type=int, default=4_000, help="of a mix and round")
    parser.add_argument("--rounds", type=int, default=3, help="of swaps, and of random requests beside hot ones")
    parser.add_argument("--memory", action="append", choices=MEMORY, help="of the random adapters; all three without")
    parser.add_argument("--samples", type=int, default=200, help="uploads, and cold adapters")
    parser.add_argument("--only", action="append", choices=PARTS, help="a part of it; all of them without")
    parser.add_argument("--small", action="store_true", help="a little of everything: to see that it works")
    args = parser.parse_args()
    args.memory = args.memory or list(MEMORY)
    if args.small:
        args.adapters, args.requests, args.rounds, args.samples = 200, 200, 1, 20
    args.dept, args.model = args.dept.resolve(), args.model.resolve()
    return args


class Run:
    def __init__(self, args: argparse.Namespace, folder: Path):
        self.args, self.folder, self.files = args, folder, Files()
        self.names_of = [f"a{number:04x}" for number in range(2 * args.adapters)]

    def server(self, share: float = 2.0, more: tuple[str, ...] = ()) -> Server:
        """With memory for `share` of the adapters."""
        # Memory is counted in units of 256 bytes.
        each = -(-self.files.bytes_in_memory() // 256) * 256
        budget = int(share * self.args.adapters * each)
        flags = ("--adapter-host-bytes", str(budget), "--queue-requests", "512", *more)
        return Server(self.args.dept, self.args.threads, self.args.model, self.folder, flags)

    def uploads(self) -> list[list[str]]:
        """Adapters that are asked for right behind their upload, beside one that nobody touches."""
        hot, live = [], []
        with self.server() as server:
            client = Client(server)
            client.upload("hot", self.files.body(0))
            bodies = [self.files.body(number) for number in range(self.args.samples + WARM)]
            for number, body in enumerate(bodies):
                began = time.perf_counter()
                client.upload("live", body)
                uploaded = (time.perf_counter() - began) * 1e3
                live.append(uploaded + client.first_token("live", number))
                hot.append(client.first_token("hot", number))
        return [beside("upload to first token, p50 ms", live[WARM:], hot[WARM:])]

    def cold(self) -> list[list[str]]:
        """The first request for an adapter since the server started, beside the second one."""
        names = self.names_of[: self.args.samples]
        with self.server() as server:
            client = Client(server)
            client.upload("hot", self.files.body(0))
            for number, name in enumerate(names):
                client.upload(name, self.files.body(number))
        cold, hot = [], []
        with self.server() as server:
            client = Client(server)
            for number in range(WARM):
                client.first_token("hot", number)
            for number, name in enumerate(names):
                cold.append(client.first_token(name, number))
                hot.append(client.first_token(name, number))
        return [beside("cold adapter, first token, p50 ms", cold, hot)]

    def swaps(self) -> list[list[str]]:
        """The time between tokens of streams, while the adapter that they use is replaced again and again."""
        quiet, busy = [], []
        # All begin together and none comes later: a prompt among them would be longer than any swap.
        flags = ["--adapters", "live", "--prompt-tokens", 32, "--output-tokens", 2 * self.args.samples]
        with self.server() as server:
            Client(server).upload("live", self.files.body(0))
            for number in range(self.args.rounds + 1):
                say(f"swaps, round {number}")
                turns = [(quiet, None), (busy, number)]
                for measured, swaps in turns if number % 2 else turns[::-1]:
                    with Swapper(server, self.files, swaps):
                        found = server.bench(STREAMS, STREAMS, [*flags, "--seed", number])
                    measured.append(found["itl_ms"]["p99"])
        what = f"{SWAPS_PER_S} swaps a second under {STREAMS} streams, p99 between tokens, ms"
        return [beside(what, busy[1:], quiet[1:])]

    def many(self) -> list[list[str]]:
        """Random adapters beside one, with memory for all of them, half and a tenth."""
        count, rows = self.args.adapters, []
        with self.server(1.05) as server:
            client = Client(server)
            client.upload("hot", self.files.body(0))
            began = time.perf_counter()
            for number in range(count):
                client.upload(self.names_of[number], self.files.body(number))
            rate = count / (time.perf_counter() - began)
            rows.append(["uploads a second, one after the other", f"{rate:.0f}", "", ""])
            if "all" in self.args.memory:
                rows.append(self.throughput(server, "all"))
        for share, said in [(0.5, "half"), (0.1, "tenth")]:
            if said not in self.args.memory:
                continue
            with self.server(share) as server:
                # So many draws find nearly all that will be in memory.
                self.ask(server, self.names_of[:count], int(2 * share * count), 99, ["--prompt-tokens", 2, "--output-tokens", 1])
                rows.append(self.throughput(server, said))
        return rows

    def ask(self, server: Server, names: list[str], requests: int, seed: int, shape: list) -> float:
        flags = ["--adapters", ",".join(names), "--pick", "uniform", *shape, "--seed", seed]
        return server.bench(AT_ONCE, max(AT_ONCE, requests), flags)["requests_per_s"]

    def throughput(self, server: Server, said: str) -> list[str]:
        ratios, rates, names = [], [], self.names_of[: self.args.adapters]
        for number in range(self.args.rounds):
            say(f"memory for {said}, round {number}")
            found = {}
            for mix in (names, ["hot"]) if number % 2 else (["hot"], names):
                # Hot ones vary less: a quarter of them tells as much.
                requests = self.args.requests // (4 if len(mix) == 1 else 1)
                found[len(mix)] = self.ask(server, mix, requests, number, SHAPE)
            rates.append(found)
            ratios.append(found[len(names)] / found[1])
        what = f"requests/s over {len(names)} random adapters, memory for {MEMORY[said]}, beside one"
        many = statistics.median(found[len(names)] for found in rates)
        one = statistics.median(found[1] for found in rates)
        return [what, f"{many:.1f}", f"{one:.1f}", f"{statistics.median(ratios):.3f}x"]

    def hidden(self) -> list[list[str]]:
        """How long the 404 of an adapter takes that a tenant may not use, beside that of a name that there is not."""
        keys = {tenant: f"dept_{tenant.encode().hex():0<40}" for tenant in ("ops", "guest")}
        hashes = {tenant: hashlib.sha256(key.encode()).hexdigest() for tenant, key in keys.items()}
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            for tenant, rest in [
                ("ops", 'scopes = ["adapters:read", "adapters:write", "admin"]'),
                ("guest", 'adapters = ["guest-*"]'),
            ]:
                file.write(f'[tenants.{tenant}]\n{rest}\nkeys = [{{ name = "k", hash = "sha256:{hashes[tenant]}" }}]\n')
            file.flush()
            with self.server(more=("--api-keys", file.name)) as server:
                Client(server, keys["ops"]).upload("there", self.files.body(0))
                guest, hidden, missing = Client(server, keys["guest"]), [], []
                for number in range(10 * self.args.samples + WARM):
                    asked = [("there", hidden), ("other", missing)]
                    for name, found in asked if number % 2 else reversed(asked):
                        found.append(guest.missed(name))
        rows = []
        for said, at in [("p50", 50), ("p99", 99)]:
            one, other = (statistics.quantiles(found[WARM:], n=100)[at - 1] for found in (hidden, missing))
            what = f"404 of an adapter of others, beside a name that there is not, {said} ms"
            rows.append([what, f"{one:.3f}", f"{other:.3f}", f"{one - other:+.3f}"])
        return rows

    def names(self) -> list[list[str]]:
        """Twice as many names: how long the server takes to start and to list them, and its memory."""
        with tempfile.TemporaryDirectory() as nothing:
            with Server(self.args.dept, self.args.threads, self.args.model, Path(nothing)) as server:
                empty, empty_bytes = server.started_in, resident_bytes(server)
        with self.server() as server:
            client = Client(server)
            for number in range(self.args.adapters, len(self.names_of)):
                client.upload(self.names_of[number], self.files.body(number))
        with self.server() as server:
            client, pages, after = Client(server), [], None
            held = resident_bytes(server)
            while after != "":
                began = time.perf_counter()
                page = json.loads(client.call("GET", "/v1/adapters?limit=1000" + (f"&after={after}" if after else "")))
                pages.append((time.perf_counter() - began) * 1e3)
                after = page["next"] or ""
        named = f"{len(self.names_of)} names"
        return [
            [f"{named}: start, s", f"{server.started_in:.2f}", f"{empty:.2f}", f"{server.started_in - empty:+.2f}"],
            [f"{named}: a page of 1000, p50 ms", f"{statistics.median(pages):.1f}", "", ""],
            [f"{named}: memory, MB", f"{held / 1e6:.0f}", f"{empty_bytes / 1e6:.0f}", f"{(held - empty_bytes) / 1e6:+.0f}"],
        ]


PARTS = {
    "uploads": Run.uploads,
    "swaps": Run.swaps,
    "cold": Run.cold,
    "many": Run.many,
    "names": Run.names,
    "hidden": Run.hidden,
}


class Swapper:
    """Replaces the adapter `live` again and again, for as long as it is entered. Without a number it does nothing."""

    def __init__(self, server: Server, files: Files, number: int | None):
        self.client, self.files, self.number, self.stop = Client(server), files, number, threading.Event()
        self.thread = threading.Thread(target=self.swap)

    def swap(self) -> None:
        version = 1_000_000 * (self.number + 1)
        while not self.stop.wait(1 / SWAPS_PER_S):
            version += 1
            self.client.upload("live", self.files.body(version))

    def __enter__(self) -> None:
        if self.number is not None:
            self.thread.start()

    def __exit__(self, *_) -> None:
        self.stop.set()
        if self.number is not None:
            self.thread.join()


def beside(what: str, found: list[float], base: list[float]) -> list[str]:
    """Medians, and the median of what one costs more than the other at the same moment."""
    more = statistics.median(one - other for one, other in zip(found, base, strict=True))
    return [what, f"{statistics.median(found):.2f}", f"{statistics.median(base):.2f}", f"{more:+.2f}"]


def resident_bytes(server: Server) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
