"""The part that the chart uses of other projects' definitions, closed: a misspelt field is an error.

Written from the definitions of the Gateway API Inference Extension (v1, August 2026), the Prometheus operator (monitoring.coreos.com/v1) and
KEDA (keda.sh/v1alpha1).
"""

TEXT = {"type": "string", "minLength": 1}
LABELS = {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}}


def closed(properties, required=()):
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": list(required)}


def kind(spec):
    metadata = closed({"name": TEXT, "labels": LABELS, "annotations": {"type": "object"}}, ["name"])
    return closed({"apiVersion": TEXT, "kind": TEXT, "metadata": metadata, "spec": spec}, ["apiVersion", "kind", "metadata", "spec"])


PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
SELECTOR = closed({"matchLabels": LABELS | {"minProperties": 1}}, ["matchLabels"])
RULE = closed({"record": TEXT, "alert": TEXT, "expr": TEXT, "for": TEXT, "labels": LABELS,
               "annotations": {"type": "object", "additionalProperties": {"type": "string"}}}, ["expr"])

CUSTOM = {
    ("inference.networking.k8s.io/v1", "InferencePool"): kind(closed({
        "selector": SELECTOR,
        "targetPorts": {"type": "array", "minItems": 1, "maxItems": 8, "items": closed({"number": PORT}, ["number"])},
        "appProtocol": {"enum": ["http", "kubernetes.io/h2c"]},
        "endpointPickerRef": closed({"name": TEXT, "kind": TEXT, "group": {"type": "string"}, "port": closed({"number": PORT}, ["number"]),
                                     "failureMode": {"enum": ["FailOpen", "FailClose"]}}, ["name", "port"]),
    }, ["selector", "targetPorts"])),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): kind(closed({
        "selector": SELECTOR,
        "endpoints": {"type": "array", "minItems": 1, "items": closed({"port": TEXT, "path": TEXT, "interval": TEXT}, ["port"])},
    }, ["selector", "endpoints"])),
    ("monitoring.coreos.com/v1", "PrometheusRule"): kind(closed({
        "groups": {"type": "array", "items": closed({"name": TEXT, "rules": {"type": "array", "items": RULE}}, ["name", "rules"])},
    }, ["groups"])),
    ("keda.sh/v1alpha1", "ScaledObject"): kind(closed({
        "scaleTargetRef": closed({"name": TEXT}, ["name"]),
        "minReplicaCount": {"type": "integer"}, "maxReplicaCount": {"type": "integer"}, "cooldownPeriod": {"type": "integer"},
        "triggers": {"type": "array", "items": closed({
            "type": {"const": "prometheus"}, "metricType": {"enum": ["AverageValue", "Value"]},
            "metadata": closed({"serverAddress": TEXT, "query": TEXT, "threshold": TEXT}, ["serverAddress", "query", "threshold"]),
        }, ["type", "metadata"])},
    }, ["scaleTargetRef", "triggers"])),
}
