#!/usr/bin/env python3
"""What the image promises, held to containers that run: tests/deploy/image.sh builds it and calls this.

    image.py FOLDER IMAGE PODMAN…       FOLDER has dept.tar, dept.spdx.json and dept.cdx.json; PODMAN… is the command
"""
import json
import pathlib
import subprocess
import tarfile
import tempfile

from asking import ask, try_upload
from containers import FOLDER, IMAGE, KEY, KEYS, PRAISE, container, expect, inspected, likes, podman, ready

MEMORY, MIB = 512, 1 << 20
# As a cluster's restricted policy has it.
LIMITED = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", f"--memory={MEMORY}m", "--cpus=1", "--pids-limit=256"]


def on_disk(most):
    """The image's parts; in all at most so many MiB. Returns the files' names."""
    config = json.loads(podman("image", "inspect", IMAGE).stdout)[0]
    labels = config["Labels"]
    expect("labels", labels["org.opencontainers.image.title"] == "dept" and len(labels["org.opencontainers.image.revision"]) == 40, labels)
    expect("not root", config["User"] == "65532:65532", config["User"])
    expect("a probe that needs no shell", config["Healthcheck"]["Test"] == ["CMD", "/usr/local/bin/dept", "health"], config.get("Healthcheck"))
    with tarfile.open(FOLDER / "dept.tar") as image:
        layers = json.load(image.extractfile("manifest.json"))[0]["Layers"]
        files = [file for layer in layers for file in tarfile.open(fileobj=image.extractfile(layer)).getmembers()]
    names = {file.name.lstrip("./") for file in files}
    shells = {name for name in names if name.rsplit("/", 1)[-1] in ("sh", "bash", "dash", "busybox", "apt", "dpkg")
              and "bin/" in name}
    expect("no shell and no package manager", not shells, shells)
    writable = [file.name for file in files if file.uid != 0 and not file.name.lstrip("./").startswith(("var/lib/dept", "home/nonroot"))]
    expect("who serves owns nothing but the place for adapters", not writable, writable[:5])
    compressed = subprocess.run(f"gzip -1 < {FOLDER / 'dept.tar'} | wc -c", shell=True, check=True, capture_output=True, text=True)
    binary = max(file.size for file in files if file.name.endswith("usr/local/bin/dept"))
    model = sum(file.size for file in files if "share/dept/models" in file.name)
    total = sum(file.size for file in files)
    cuda = sum(file.size for file in files if "usr/local/cuda/" in file.name)
    print(f"    {total / MIB:.0f} MiB, {int(compressed.stdout) / MIB:.0f} compressed: the binary {binary / MIB:.0f}, the model "
          f"{model / MIB:.0f}, " + f"CUDA {cuda / MIB:.0f}, " * (cuda > 0) + f"the base {(total - binary - model - cuda) / MIB:.0f}")
    expect(f"under {most} MiB", total < most * MIB, total)
    return names


def listed(*more):
    packages = {package["name"] for package in json.loads((FOLDER / "dept.spdx.json").read_text())["packages"]}
    missing = {"libc6", "tokenizers", "candle-core", "axum", "rustls", *more} - packages
    expect(f"the SBOM lists {len(packages)} packages: Debian's and the binary's crates", not missing, missing)
    expect("and none that only tests use", not packages & {"proptest", "criterion", "rcgen"}, packages)


def refusals():
    done = podman("run", "--rm", IMAGE, check=False)
    said = done.stdout + done.stderr
    expect("beyond loopback without keys: 78, and how to go on", done.returncode == 78 and "--api-keys" in said
           and "--allow-anonymous" in said, (done.returncode, said))
    done = podman("run", "--rm", *LIMITED, "--memory=64m", "--memory-swap=64m", "-e", "DEPT_ALLOW_ANONYMOUS=true", IMAGE, check=False)
    expect("the memory limit holds: 64 MiB are too few, the kernel ends it", done.returncode == 137, (done.returncode, done.stderr))


def limited():
    with container("dept-limited", *LIMITED, "-e", "DEPT_ALLOW_ANONYMOUS=true") as address:
        ready("dept-limited")
        state = inspected("dept-limited")
        status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{state['State']['Pid']}/status").read_text().splitlines())
        expect("65532, without a capability or a way to get one", status["Uid"].split()[0] == "65532" and int(status["CapEff"], 16) == 0
               and status["NoNewPrivs"].strip() == "1", status)
        mounts = pathlib.Path(f"/proc/{state['State']['Pid']}/mountinfo").read_text().splitlines()
        root = next(line.split() for line in mounts if line.split()[4] == "/")
        expect("the root is read-only", root[5].split(",")[0] == "ro", root)
        host = state["HostConfig"]
        expect("limits are set", host["Memory"] == MEMORY * MIB and host["NanoCpus"] == 10**9, (host["Memory"], host["NanoCpus"]))
        expect("it answers", likes(address))
        found = ask(f"http://{address}/v1/adapters")[1]
        expect("with the adapters in the box", all(f'"{name}"' in found for name in ("boolq", "sst2", "subj", "trec")), found)
        status, body = try_upload(address, "mine", "sst2")
        print(f"    an upload without a volume: {status} {body.strip()[:160]}")
        expect("an upload without a volume is refused, and nothing breaks", status >= 400 and likes(address), (status, body))
        health = podman("healthcheck", "run", "dept-limited")
        expect("the probe of the image", health.returncode == 0)
        silent = podman("exec", "dept-limited", "/usr/local/bin/dept", "health", "--admin=127.0.0.1:1", check=False)
        expect("which fails where nobody answers", silent.returncode == 1 and "does not answer" in silent.stderr, silent)
        done = podman("exec", "dept-limited", "/usr/local/bin/dept", "bench", "--adapters=sst2,trec,subj,boolq", "--requests=400",
                      "--concurrency=16")
        print("    " + "\n    ".join(done.stdout.splitlines()[:6]))
        peak = int(next(line.split()[1] for line in pathlib.Path(f"/proc/{state['State']['Pid']}/status").read_text().splitlines()
                        if line.startswith("VmHWM")))
        expect(f"400 requests at once by 16: {peak / 1024:.0f} MiB at most", peak < MEMORY * 1024)
        podman("stop", "--time=20", "dept-limited")
        ended = inspected("dept-limited")["State"]
        expect("SIGTERM drains, 0", ended["ExitCode"] == 0, ended)


def kept():
    """Keys, and uploads that outlive a container."""
    podman("volume", "rm", "--force", "dept-state", check=False)
    with tempfile.TemporaryDirectory() as work:
        keys = pathlib.Path(work, "keys.toml")
        keys.write_text(KEYS)
        pathlib.Path(work).chmod(0o755)
        options = [*LIMITED, "--volume=dept-state:/var/lib/dept", f"--volume={work}:/etc/dept/keys:ro",
                   "-e", "DEPT_API_KEYS=/etc/dept/keys/keys.toml"]
        with container("dept-kept", *options) as address:
            ready("dept-kept")
            expect("with keys it asks for one", ask(f"http://{address}/v1/generate", PRAISE)[0] == 401 and likes(address, key=KEY))
            status, body = try_upload(address, "mine", "sst2", KEY)
            expect("an upload into a volume", status == 201, (status, body))
        with container("dept-kept", *options) as address:
            ready("dept-kept")
            expect("is there in the next container", likes(address, "mine", KEY))
    podman("volume", "rm", "--force", "dept-state")


def main():
    on_disk(most=250)
    listed()
    refusals()
    limited()
    kept()


if __name__ == "__main__":
    main()
