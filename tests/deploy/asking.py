"""What every check here does: find a port, wait for something, ask a server, give it an adapter."""
import hashlib
import json
import pathlib
import socket
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def digest(key):
    """What a key file holds of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def until(what, holds, seconds=60):
    """What `holds` returns, as soon as that is something."""
    for _ in range(seconds * 20):
        found = holds()
        if found:
            return found
        time.sleep(0.05)
    sys.exit(f"gave up waiting: {what}")


def ask(url, body=None, key=None, method=None, kind="application/json"):
    """Status and text; a refusal is an answer too, and 0 is nobody's."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": kind} | ({"authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()
    except OSError as error:
        return 0, str(error)


def try_upload(address, name, adapter, key=None):
    """PUTs the folder of the shipped `adapter` under another name: status and text."""
    boundary, parts = "----dept", b""
    for part, file in (("config", "adapter_config.json"), ("weights", "adapter_model.safetensors"), ("card", "card.toml")):
        head = f'--{boundary}\r\ncontent-disposition: form-data; name="{part}"; filename="{file}"\r\n\r\n'
        parts += head.encode() + (ROOT / "adapters" / adapter / file).read_bytes() + b"\r\n"
    return ask(f"http://{address}/v1/adapters/{name}", parts + f"--{boundary}--\r\n".encode(), key, "PUT",
               f"multipart/form-data; boundary={boundary}")


def upload(address, name, adapter, key=None):
    """The same, which must succeed."""
    status, text = try_upload(address, name, adapter, key)
    if status not in (200, 201):
        raise RuntimeError(f"upload of {name}: {status} {text}")
