#!/usr/bin/env python3
"""The kustomize base as a pod that runs, without a cluster: tests/deploy/image.sh calls this.

    pod.py FOLDER IMAGE PODMAN…
"""
import json
import pathlib
import subprocess
import tempfile

import yaml

from asking import ROOT, ask, free_port, try_upload, until
from containers import IMAGE, KEY, KEYS, PRAISE, expect, inspected, likes, podman


def manifest(ports):
    """The kustomize base for a machine without a cluster: keys beside it, free ports, and no probes, for which podman wants
    a shell and curl in the image: they are asked from outside."""
    rendered = subprocess.run(["kubectl", "kustomize", ROOT / "deploy/kustomize/base"], check=True, capture_output=True, text=True).stdout
    objects = [one for one in yaml.safe_load_all(rendered) if one and one["kind"] in ("Deployment", "ConfigMap")]
    deployment = next(one for one in objects if one["kind"] == "Deployment")
    [server] = deployment["spec"]["template"]["spec"]["containers"]
    server["image"] = IMAGE
    server["imagePullPolicy"] = "Never"
    del server["readinessProbe"], server["livenessProbe"], server["lifecycle"]
    for port in server["ports"]:
        port |= {"hostIP": "127.0.0.1", "hostPort": ports[port["name"]]}
    # podman 4.3 mounts a Secret's values as they stand in the manifest, in base64: a ConfigMap takes its place.
    keys = next(one for one in deployment["spec"]["template"]["spec"]["volumes"] if "secret" in one)
    keys["configMap"] = {"name": keys.pop("secret")["secretName"]}
    held = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dept-keys"}, "data": {"keys.toml": KEYS}}
    return yaml.safe_dump_all([held, *objects])


def running(address, admin):
    until("the pod is ready", lambda: ask(f"http://{admin}/health/ready")[0] == 200)
    expect("the kustomize base runs as a pod", ask(f"http://{admin}/health/live")[0] == 200)
    [name] = [one["Names"][0] for one in json.loads(podman("ps", "--format=json").stdout) if one["Image"] == IMAGE]
    state = inspected(name)
    host, status = state["HostConfig"], pathlib.Path(f"/proc/{state['State']['Pid']}/status").read_text()
    expect("with its limits, on a read-only root, as 65532", host["Memory"] == 2 << 30 and host["ReadonlyRootfs"] and
           "Uid:\t65532" in status and "CapEff:\t0000000000000000" in status, (host, status))
    expect("its configuration and its keys: one is asked for", ask(f"http://{address}/v1/generate", PRAISE)[0] == 401)
    status, body = try_upload(address, "mine", "sst2", KEY)
    expect("its emptyDir takes an upload", status == 201 and likes(address, "mine", KEY), (status, body))
    podman("exec", name, "/usr/local/bin/dept", "health", "--live")
    expect("metrics on the admin port", "dept_requests_total" in ask(f"http://{admin}/metrics")[1])


def main():
    ports = {name: free_port() for name in ("http", "grpc", "admin")}
    with tempfile.TemporaryDirectory() as work:
        file = pathlib.Path(work, "pod.yaml")
        file.write_text(manifest(ports))
        podman("kube", "play", file)
        try:
            running(f"127.0.0.1:{ports['http']}", f"127.0.0.1:{ports['admin']}")
        finally:
            podman("kube", "down", file)
            podman("volume", "prune", "--force")


if __name__ == "__main__":
    main()
