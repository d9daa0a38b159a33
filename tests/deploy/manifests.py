#!/usr/bin/env python3
"""The Helm chart and the kustomize base, rendered in every combination that matters and validated strictly.

    tests/deploy/manifests.sh         makes a virtual environment with what this needs, and runs it

Kubernetes' own kinds are held to the schemas of three versions, with unknown fields refused; the kinds of others (Gateway API Inference
Extension, Prometheus operator, KEDA) and the endpoint picker's file to schemas.py.
"""
import copy
import pathlib
import subprocess
import sys
import warnings

import jsonschema
import yaml
from helm_python import Chart, HelmError

from schemas import PICKER, custom

warnings.filterwarnings("ignore")
import kubernetes_validate  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/dept"
VERSIONS = ("1.33.0", "1.35.0", "1.37.0")

KEYS = {"apiKeysSecret": "dept-keys"}
PICKER_PODS = {"llm-d-router-gateway": "dept-router-epp"}
GATEWAYS = [{"podSelector": {"matchLabels": {"role": "gateway"}}}]
MONITORING = [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]
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
                                         "monitoring": MONITORING}},
    "inference pool": KEYS | {"inferencePool": {"enabled": True}},
    "inference pool of the picker's chart": KEYS | {"inferencePool": {
        "enabled": True, "create": False, "scrapeInterval": "200ms",
        "scorers": [{"type": "queue-scorer", "weight": 1}, {"type": "lora-affinity-scorer", "weight": 0.5}],
        "engine": {"labelKey": "example.com/engine", "name": "soft-prompts", "queuedRequestsSpec": "dept_batch_sequences"}}},
    "inference pool, guarded": KEYS | {
        "inferencePool": {"enabled": True, "endpointPicker": {"podLabels": PICKER_PODS}},
        "networkPolicy": {"enabled": True, "clients": GATEWAYS, "monitoring": MONITORING}},
    "inference pool, guarded for nobody in particular": KEYS | {"inferencePool": {"enabled": True}, "networkPolicy": {"enabled": True}},
    "no weights kept": KEYS | {"weightsCache": {"enabled": False}, "extraEnv": [{"name": "RUST_BACKTRACE", "value": "1"}]},
    "much room for weights": KEYS | {"weightsCache": {"sizeLimit": "20Gi"}, "model": {"dtype": "fine"}},
    "more memory": KEYS | {"resources": {"limits": {"memory": "64Gi"}}},
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
    "a picker that may not scrape": (
        KEYS | {"inferencePool": {"enabled": True}, "networkPolicy": {"enabled": True, "monitoring": MONITORING}}, "endpointPicker.podLabels"),
    "a metric's name that is none": (KEYS | {"inferencePool": {"engine": {"kvUsageSpec": "dept kv"}}}, "kvUsageSpec"),
    "a question that no picker asks": (KEYS | {"inferencePool": {"engine": {"kvUsage": "dept_kv_cache_usage_ratio"}}}, "kvUsage"),
    "the engine's name that means unlabelled pods": (KEYS | {"inferencePool": {"engine": {"name": "default"}}}, "engine"),
    "a picker that weighs nothing": (KEYS | {"inferencePool": {"scorers": []}}, "scorers"),
    "weights that two say": (KEYS | {"config": {"weights_cache": "/tmp"}}, "'weights_cache'"),
    "weights that a variable says": (KEYS | {"extraEnv": [{"name": "DEPT_WEIGHTS_CACHE", "value": "/tmp"}]}, "weightsCache.enabled"),
    "a number format that there is not": (KEYS | {"model": {"dtype": "f16"}}, "dtype"),
}


def documents(rendered):
    for path, text in rendered.items():
        if path.endswith("NOTES.txt"):
            continue
        for document in yaml.safe_load_all(text):
            if document:
                yield document


def validate(document, version):
    if not custom(document):
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


def documented():
    """The metrics that docs/metrics.md lists, with their labels."""
    rows = [line.split("|") for line in (ROOT / "docs/metrics.md").read_text().splitlines() if line.startswith("| `dept_")]
    return {row[1].strip(" `"): {label.strip() for label in row[3].split(",")} for row in rows}


def only(objects, kind, name="dept"):
    [found] = [one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def ports(deployment):
    [server] = deployment["spec"]["template"]["spec"]["containers"]
    return {port["name"]: port["containerPort"] for port in server["ports"]}


def configured(objects):
    return yaml.safe_load(only(objects, "ConfigMap", "dept-picker")["data"]["picker.yaml"])


def picked(objects, file):
    """The endpoint picker's file, held to its schema, to itself, to the pods and to the metrics that there are."""
    jsonschema.validate(file, PICKER)
    plugins = {plugin.get("name", plugin["type"]): plugin.get("parameters", {}) for plugin in file["plugins"]}
    named = [one["pluginRef"] for profile in file["schedulingProfiles"] for one in profile["plugins"]]
    for source in file["dataLayer"]["sources"]:
        named += [source["pluginRef"], *(one["pluginRef"] for one in source["extractors"])]
    assert set(named) == set(plugins), f"plugins {sorted(plugins)}, used {sorted(named)}"
    template = only(objects, "Deployment")["spec"]["template"]
    assert plugins["metrics-data-source"]["port"] == ports(only(objects, "Deployment"))["admin"], "metrics are on the admin port"
    extractor = plugins["core-metrics-extractor"]
    [engine] = extractor["engineConfigs"]
    assert template["metadata"]["labels"][extractor["engineLabelKey"]] == engine["name"], "the pods are known by their label"
    metrics = documented()
    asked = {key: spec.partition("{")[0] for key, spec in engine.items() if key.endswith("Spec")}
    assert set(asked) == {"queuedRequestsSpec", "runningRequestsSpec", "kvUsageSpec", "loraSpec"}, asked
    for key, metric in asked.items():
        assert metric in metrics, f"{key}: docs/metrics.md has no {metric}"
    labels = {"max_lora", "running_lora_adapters", "waiting_lora_adapters"}
    assert metrics[asked["loraSpec"]] == labels, "the labels that the picker reads"


def pools(rendered):
    """What the inference pool's parts say of each other, and that what is wrong in them is found."""
    pool, whole = only(rendered["inference pool"], "InferencePool"), rendered["inference pool"]
    assert pool["spec"]["targetPorts"] == [{"number": ports(only(whole, "Deployment"))["http"]}]
    labels = only(whole, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert pool["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for name, objects in rendered.items():
        if name.startswith("inference pool"):
            picked(objects, configured(objects))
        else:
            assert not [one for one in objects if one["metadata"]["name"] == "dept-picker"], name
    theirs = rendered["inference pool of the picker's chart"]
    assert not [one for one in theirs if one["kind"] == "InferencePool"]
    assert configured(theirs)["plugins"][0]["parameters"]["interval"] == "200ms"
    assert configured(theirs)["schedulingProfiles"][0]["plugins"] == [
        {"pluginRef": "queue-scorer", "weight": 1}, {"pluginRef": "lora-affinity-scorer", "weight": 0.5}]
    for name, scrapers in (("inference pool, guarded", MONITORING + [{"podSelector": {"matchLabels": PICKER_PODS}}]),
                           ("inference pool, guarded for nobody in particular", None), ("guarded", MONITORING)):
        [admin] = [rule for rule in only(rendered[name], "NetworkPolicy")["spec"]["ingress"] if rule["ports"][0]["port"] == "admin"]
        assert admin.get("from") == scrapers, f"{name}: {admin}"
    for name, change in {
        "a misspelt field": lambda spec: spec.update(selectors={}),
        "a misspelt field of the picker": lambda spec: spec["endpointPickerRef"].update(mode="FailOpen"),
        "no port of the picker's Service": lambda spec: spec["endpointPickerRef"].pop("port"),
        "a port out of range": lambda spec: spec.update(targetPorts=[{"number": 0}]),
        "one port twice": lambda spec: spec.update(targetPorts=[{"number": 8080}, {"number": 8080}]),
        "no selector": lambda spec: spec.pop("selector"),
        "an unknown way to fail": lambda spec: spec["endpointPickerRef"].update(failureMode="FailSafe"),
    }.items():
        broken = copy.deepcopy(pool)
        change(broken["spec"])
        refused(f"an InferencePool with {name}", custom, broken)
    for name, change in {
        "vLLM's name for a metric": lambda file: file["plugins"][1]["parameters"]["engineConfigs"][0].update(kvUsageSpec="vllm:kv_cache_usage_perc"),
        "a misspelt question": lambda file: file["plugins"][1]["parameters"]["engineConfigs"][0].update(loRASpec="dept_lora_requests_info"),
        "the pool's port for metrics": lambda file: file["plugins"][0]["parameters"].update(port=8080),
        "another engine's name": lambda file: file["plugins"][1]["parameters"]["engineConfigs"][0].update(name="vllm"),
        "a scorer that is not there": lambda file: file["schedulingProfiles"][0]["plugins"].append({"pluginRef": "queue", "weight": 1}),
    }.items():
        broken = configured(whole)
        change(broken)
        refused(f"a picker's file with {name}", picked, whole, broken)


def refused(name, held, *arguments):
    try:
        held(*arguments)
    except (jsonschema.ValidationError, AssertionError):
        print(f"ok  refused: {name}")
    else:
        sys.exit(f"{name}: nobody minds")


def weights(name, deployment, room):
    """Where packed weights are kept: on a volume of `room`, which may be no bound (None), or nowhere (False)."""
    spec = deployment["spec"]["template"]["spec"]
    [server] = spec["containers"]
    [folder] = [pathlib.PurePath(one["value"]) for one in server["env"] if one["name"] == "DEPT_WEIGHTS_CACHE"]
    mounts = {pathlib.PurePath(one["mountPath"]): one for one in server["volumeMounts"]}
    held = [mounts[parent] for parent in folder.parents if parent in mounts]
    if room is False:
        assert str(folder) == "off" and not held and "cache" not in [one["name"] for one in spec["volumes"]], name
        return
    [mount] = held
    [volume] = [one for one in spec["volumes"] if one["name"] == mount["name"]]
    assert not mount.get("readOnly") and volume["emptyDir"].get("sizeLimit") == room, f"{name}: {volume}"


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
    pools(rendered)
    unlimited = chart.render(KEYS | {"resources": {"limits": None}}, name="dept", namespace="serving", is_install=True)
    rendered["no limit of memory"] = list(documents(unlimited))
    for name, room in (("keys", "2Gi"), ("no weights kept", False), ("much room for weights", "20Gi"), ("more memory", "64Gi"),
                       ("no limit of memory", None)):
        weights(name, only(rendered[name], "Deployment"), room)
    for name, protocols in (("keys", ["http", "kubernetes.io/h2c"]), ("tls", ["https", "https"])):
        assert [port["appProtocol"] for port in only(rendered[name], "Service")["spec"]["ports"]] == protocols, name
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
    found = check("kustomize base", [document for document in yaml.safe_load_all(base.stdout) if document])
    deployment = only(found, "Deployment")
    weights("kustomize base", deployment, deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"])


if __name__ == "__main__":
    main()
