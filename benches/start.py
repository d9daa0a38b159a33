"""How long a server takes from its process's start to its first answer, and how much memory, with packed weights kept and without.

    python3 benches/start.py --dept target/release/dept [MODEL ...] [--rounds 5]

Without a MODEL it is the embedded one. Of each model a server is started once with an empty folder for packed weights, then in
turns with what that start has kept and with `--weights-cache off`. Prints medians. The model's file is in the system's page cache
in all of them. Needs Python 3.11 or newer and Linux, and nothing else.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benches/peers"))

from machine import describe, load_average  # noqa: E402

ASK = urllib.request.build_opener(urllib.request.ProxyHandler({}))
BODY = json.dumps({"prompt": [100, 200, 300], "max_tokens": 1}).encode()


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def answered(url: str) -> bool:
    try:
        ASK.open(urllib.request.Request(url, BODY, {"content-type": "application/json"})).read()
        return True
    except urllib.error.HTTPError as error:
        if error.code != 503:
            sys.exit(f"{url}: {error.code} {error.read().decode()}")
    except OSError:
        pass
    return False


def start(dept: Path, model: str | None, cache: str) -> tuple[float, float]:
    """Milliseconds to the first answer, and the most MiB that were resident until then."""
    port = free_port()
    command = [dept, "serve", "--http", f"127.0.0.1:{port}", "--grpc", "off", "--admin", "127.0.0.1:0", "--log", "error", "--weights-cache", cache]
    command += ["--model", model] if model else []
    began = time.monotonic()
    server = subprocess.Popen(command, cwd=ROOT)
    try:
        while not answered(f"http://127.0.0.1:{port}/v1/generate"):
            if server.poll() is not None:
                sys.exit(f"{' '.join(map(str, command))} ended with {server.returncode}")
            time.sleep(0.001)
        took = time.monotonic() - began
        status = Path(f"/proc/{server.pid}/status").read_text()
    finally:
        server.terminate()
        server.wait()
    return 1e3 * took, int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dept", type=Path, required=True, help="the binary")
    parser.add_argument("models", nargs="*", help="folders or files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="one round: to see that it works")
    args = parser.parse_args()
    if args.small:
        args.rounds = 1
    dept, load = args.dept.resolve(), load_average()
    print("| model | packed weights, MB | | first start | kept | off |\n| --- | --- | --- | --- | --- | --- |")
    for model in args.models or [None]:
        with tempfile.TemporaryDirectory() as cache:
            first = start(dept, model, cache)
            turns = [(start(dept, model, cache), start(dept, model, "off")) for _ in range(args.rounds)]
            size = sum(file.stat().st_size for file in Path(cache).glob("*.packed")) / 1e6
        kept, off = ([median(values) for values in zip(*one)] for one in zip(*turns))
        name = Path(model).stem if model else "embedded"
        print(f"| {name} | {size:.0f} | ms to the first answer | {first[0]:.0f} | {kept[0]:.0f} | {off[0]:.0f} |")
        print(f"| | | peak MiB | {first[1]:.0f} | {kept[1]:.0f} | {off[1]:.0f} |")
    print(f"\n{describe(os.cpu_count(), load)}")


if __name__ == "__main__":
    main()
