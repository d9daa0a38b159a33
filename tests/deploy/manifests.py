#!/usr/bin/env python3
"""The Helm chart and the kustomize base, rendered in every combination that matters and validated strictly.

    tests/deploy/manifests.sh         makes a virtual environment with what this needs, and runs it

Kubernetes' own kinds are held to the schemas of three versions, with unknown fields refused; the kinds of others (Prometheus operator,
KEDA, Gateway API Inference Extension) to the part of their definitions that the chart uses, which stands in schemas.py.
"""
import pathlib
import subprocess
import sys
import warnings

import jsonschema
import yaml
from helm_python import Chart, HelmError

from schemas import CUSTOM

warnings.filterwarnings("ignore")
import kubernetes_validate  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/dept"
VERSIONS = ("1.33.0", "1.35.0", "1.37.0")

KEYS = {"apiKeysSecret": "dept-keys"}
BUCKET = {"adapters": {"store": "bucket", "bucket": "s3://adapters/team", "credentialsSecret": "s3", "environmentConfigMap": "s3-env"}}
GOOD = {
    "keys": KEYS,
    "anonymous": {"allowAnonymous": True},
    "tls": KEYS | {"tlsSecret": "dept-tls"},
    "claim": KEYS | {"adapters": {"store": "claim", "claim": {"size": "1Gi", "storageClassName": "fast"}}},
    "shared claim": KEYS | {"replicas": 2, "adapters": {"store": "claim", "claim": {"accessModes": ["ReadWriteMany"]}}},
    "bucket, three replicas": KEYS | BUCKET | {"replicas": 3},
    "hpa": KEYS | BUCKET | {"autoscaling": {"kind": "hpa"}},
    "keda": KEYS | BUCKET | {"autoscaling": {"kind": "keda"}},
    "gpu": KEYS | {"gpu": {"enabled": True}, "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]},
    "model from a claim": KEYS | {"model": {"source": "/models/t5", "name": "t5", "volume": {"persistentVolumeClaim": {"claimName": "models"}}}},
    "model from an image": KEYS | {"model": {"source": "/models/t5", "volume": {"image": {"reference": "registry.example/t5:1"}}}},
    "watched": KEYS | {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}, "prometheusRule": {"enabled": True},
                       "dashboards": {"enabled": True}},
    "guarded": KEYS | {"networkPolicy": {"enabled": True, "clients": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}],
                                         "monitoring": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]}},
    "inference pool": KEYS | {"inferencePool": {"enabled": True}},
    "settings": KEYS | {"config": {"max_num_seqs": 64, "prefix_cache": False, "kv_cache_bytes": "1GiB"}},
}
BAD = {
    "nobody may come in": ({}, "apiKeysSecret is empty and allowAnonymous is false"),
    "keys and everyone": (KEYS | {"allowAnonymous": True}, "exclude each other"),
    "a bucket without a name": (KEYS | {"adapters": {"store": "bucket"}}, "adapters.bucket is empty"),
    "two replicas, two stores": (KEYS | {"replicas": 2}, "several replicas need one store"),
    "autoscaling on a folder": (KEYS | {"autoscaling": {"kind": "hpa"}}, "several replicas need one store"),
    "a misspelt value": (KEYS | {"replica": 2}, "replica"),
    "both autoscalers": (KEYS | {"autoscaling": {"kind": "both"}}, "autoscaling"),
    "a setting that a value sets": (KEYS | {"config": {"http": "0.0.0.0:1"}}, "'http'"),
    "a port out of range": (KEYS | {"service": {"httpPort": 99999}}, "httpPort"),
}


def documents(rendered):
    for path, text in rendered.items():
        if path.endswith("NOTES.txt"):
            continue
        for document in yaml.safe_load_all(text):
            if document:
                yield document


def validate(document, version):
    kind = (document["apiVersion"], document["kind"])
    if kind in CUSTOM:
        jsonschema.validate(document, CUSTOM[kind])
    else:
        kubernetes_validate.validate(document, version, strict=True)


def restricted(document):
    """What the `restricted` pod security standard asks of a pod."""
    spec = document["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert spec["automountServiceAccountToken"] is False
    for container in spec["containers"] + spec.get("initContainers", []):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False and context["capabilities"]["drop"] == ["ALL"]
        assert context["readOnlyRootFilesystem"] is True
        assert "memory" in container["resources"]["limits"]
    grace = spec["terminationGracePeriodSeconds"]
    assert grace > container["lifecycle"]["preStop"]["sleep"]["seconds"], "the drain gets time after the hook"


def check(name, found):
    held = list(found)
    for document in held:
        for version in VERSIONS:
            try:
                validate(document, version)
            except Exception as error:  # noqa: BLE001: whatever a validator says is the finding
                sys.exit(f"{name}: {document['kind']} {document['metadata']['name']} for {version}: {error}")
        if document["kind"] == "Deployment":
            restricted(document)
    names = [(document["kind"], document["metadata"]["name"]) for document in held]
    assert len(names) == len(set(names)), f"{name}: two of one name: {names}"
    print(f"ok  {name}: {len(held)} objects")
    return held


def main():
    chart = Chart.load(CHART)
    rendered = {}
    for name, values in GOOD.items():
        chart.validate_schema(values)
        found = chart.render(values, name="dept", namespace="serving", is_install=True)
        rendered[name] = check(name, documents(found))
    hpa = [d for d in rendered["hpa"] if d["kind"] == "Deployment"][0]
    assert "replicas" not in hpa["spec"], "an autoscaler's own number is not written over"
    assert {d["kind"] for d in rendered["hpa"]} & {"ScaledObject"} == set()
    rules = [d for d in rendered["watched"] if d["kind"] == "PrometheusRule"][0]["spec"]
    assert rules == yaml.safe_load((ROOT / "deploy/prometheus/dept.rules.yml").read_text())
    for name, image, device in (("keys", "dept:0.1.0", False), ("gpu", "dept:0.1.0-cuda", True)):
        found = {d["kind"]: d for d in rendered[name]}
        assert found["Deployment"]["spec"]["template"]["spec"]["containers"][0]["image"] == image, name
        assert ('device = "cuda:0"' in found["ConfigMap"]["data"]["dept.toml"]) == device, name
    for name, (values, reason) in BAD.items():
        try:
            chart.validate_schema(values)
            chart.render(values, name="dept", namespace="serving", is_install=True)
        except HelmError as error:
            assert reason in str(error), f"{name}: {error}"
            print(f"ok  refused: {name}")
        else:
            sys.exit(f"{name}: rendered")
    base = subprocess.run(["kubectl", "kustomize", ROOT / "deploy/kustomize/base"], check=True, capture_output=True, text=True)
    check("kustomize base", [document for document in yaml.safe_load_all(base.stdout) if document])


if __name__ == "__main__":
    main()
