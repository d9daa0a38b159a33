"""Containers for the checks of the image, through podman, and requests to what runs in them."""
import contextlib
import json
import pathlib
import subprocess
import sys

from asking import ask, digest, until

FOLDER, IMAGE, PODMAN = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
KEY = "dept_" + "7" * 40
KEYS = f"""
[tenants.acme]
scopes = ["generate", "adapters:read", "adapters:write"]
keys = [{{ name = "k", hash = "sha256:{digest(KEY)}" }}]
"""
PRAISE = {"adapter": "sst2", "prompt": "sentence: a warm , funny and moving film ."}


def podman(*arguments, check=True):
    # Where the kernel ends a container, a note is left in the working directory.
    done = subprocess.run([*PODMAN, *map(str, arguments)], capture_output=True, text=True, timeout=180, cwd=FOLDER)
    if check and done.returncode:
        sys.exit(f"BAD podman {' '.join(map(str, arguments))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def expect(what, holds, found=""):
    if not holds:
        sys.exit(f"BAD {what}: {found}")
    print(f"ok  {what}", flush=True)


def likes(address, adapter="sst2", key=None):
    status, body = ask(f"http://{address}/v1/generate", PRAISE | {"adapter": adapter}, key)
    return status == 200 and json.loads(body)["label"] == "positive"


@contextlib.contextmanager
def container(name, *arguments, command=()):
    """One that runs, with its API on loopback; gone afterwards."""
    podman("rm", "--force", "--time=0", name, check=False)
    podman("run", "--detach", f"--name={name}", "--publish=127.0.0.1::8080", *arguments, IMAGE, *command)
    try:
        yield podman("port", name, "8080").stdout.split()[-1]
    finally:
        podman("rm", "--force", "--time=0", name, check=False)


def ready(name):
    until(f"{name} is ready", lambda: podman("exec", name, "/usr/local/bin/dept", "health", check=False).returncode == 0)


def inspected(name):
    return json.loads(podman("inspect", name).stdout)[0]
