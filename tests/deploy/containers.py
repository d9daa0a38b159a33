"""Containers for the checks of the image, through podman, and requests to what runs in them."""
import contextlib
import hashlib
import json
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER, IMAGE, PODMAN = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
KEY = "dept_" + "7" * 40
KEYS = f"""
[tenants.acme]
scopes = ["generate", "adapters:read", "adapters:write"]
keys = [{{ name = "k", hash = "sha256:{hashlib.sha256(KEY.encode()).hexdigest()}" }}]
"""
PRAISE = {"adapter": "sst2", "prompt": "sentence: a warm , funny and moving film ."}


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


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


def until(what, holds, seconds=60):
    for _ in range(seconds * 5):
        if holds():
            return
        time.sleep(0.2)
    sys.exit(f"gave up waiting: {what}")


def ask(url, body=None, key=None, method=None, kind="application/json"):
    """Status and body; 0 where nobody answers."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": kind} | ({"authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()
    except OSError as error:
        return 0, str(error)


def upload(address, name, key=None):
    boundary, parts = "----dept", b""
    for part, file in (("config", "adapter_config.json"), ("weights", "adapter_model.safetensors"), ("card", "card.toml")):
        head = f'--{boundary}\r\ncontent-disposition: form-data; name="{part}"; filename="{file}"\r\n\r\n'
        parts += head.encode() + (ROOT / "adapters/sst2" / file).read_bytes() + b"\r\n"
    return ask(f"http://{address}/v1/adapters/{name}", parts + f"--{boundary}--\r\n".encode(), key, "PUT",
               f"multipart/form-data; boundary={boundary}")


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
