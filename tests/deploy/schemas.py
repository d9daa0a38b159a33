"""Other projects' definitions, closed: a misspelt field is an error.

InferencePool is held to its own definition, which lies in schemas/. The rest is the part that the chart uses, written from the definitions of the
Prometheus operator (monitoring.coreos.com/v1), KEDA (keda.sh/v1alpha1) and llm-d-router's endpoint picker (llm-d.ai/v1alpha1).
"""
import copy
import pathlib

import jsonschema
import yaml

SCHEMAS = pathlib.Path(__file__).parent / "schemas"
TEXT = {"type": "string", "minLength": 1}
LABELS = {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}}


def closed(properties, required=()):
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": list(required)}


METADATA = closed({"name": TEXT, "labels": LABELS, "annotations": {"type": "object"}}, ["name"])


def kind(spec):
    return closed({"apiVersion": TEXT, "kind": TEXT, "metadata": METADATA, "spec": spec}, ["apiVersion", "kind", "metadata", "spec"])


PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
SELECTOR = closed({"matchLabels": LABELS | {"minProperties": 1}}, ["matchLabels"])
RULE = closed({"record": TEXT, "alert": TEXT, "expr": TEXT, "for": TEXT, "labels": LABELS,
               "annotations": {"type": "object", "additionalProperties": {"type": "string"}}}, ["expr"])

CUSTOM = {
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

# The endpoint picker's own file, from llm-d-router at ebab687927f5331c1b39defcb579a07951bce56c (2026-08-21, Apache-2.0), which decodes it strictly:
# apix/config/v1alpha1/endpointpickerconfig_types.go and, under pkg/epp/framework/plugins/datalayer, source/metrics/datasource.go and
# extractor/metrics/factories.go.
REFERENCE = closed({"pluginRef": TEXT}, ["pluginRef"])
PARAMETERS = {
    "metrics-data-source": closed({"scheme": {"enum": ["http", "https"]}, "path": TEXT, "port": PORT, "interval": TEXT,
                                   "insecureSkipVerify": {"type": "boolean"}, "caCertPath": TEXT}),
    "core-metrics-extractor": closed({
        "engineLabelKey": TEXT, "defaultEngine": TEXT,
        "engineConfigs": {"type": "array", "minItems": 1, "items": closed({
            "name": TEXT, "queuedRequestsSpec": TEXT, "runningRequestsSpec": TEXT, "kvUsageSpec": TEXT, "loraSpec": TEXT,
        }, ["name"])},
    }),
    "queue-scorer": closed({}), "kv-cache-utilization-scorer": closed({}), "lora-affinity-scorer": closed({}),
    "prefix-cache-scorer": closed({"matchLengthWeight": {"type": "number"}, "matchLengthScaleTokens": {"type": "integer"}}),
    "running-requests-size-scorer": closed({}),
}
PICKER = closed({
    "apiVersion": {"const": "llm-d.ai/v1alpha1"}, "kind": {"const": "EndpointPickerConfig"},
    "plugins": {"type": "array", "minItems": 1, "items": {"anyOf": [
        closed({"name": TEXT, "type": {"const": plugin}, "parameters": parameters}, ["type"]) for plugin, parameters in PARAMETERS.items()]}},
    "schedulingProfiles": {"type": "array", "minItems": 1, "items": closed({"name": TEXT, "plugins": {
        "type": "array", "minItems": 1, "items": closed({"pluginRef": TEXT, "weight": {"type": "number"}}, ["pluginRef"])}}, ["name", "plugins"])},
    "dataLayer": closed({"injectDefaults": {"type": "boolean"}, "sources": {
        "type": "array", "items": closed({"pluginRef": TEXT, "extractors": {"type": "array", "items": REFERENCE}}, ["pluginRef", "extractors"])}}),
}, ["apiVersion", "kind", "plugins", "schedulingProfiles"])


def shut(schema):
    """A definition's schema as the API server takes it with strict field validation: what it does not name is not allowed."""
    if isinstance(schema, list):
        return [shut(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: shut(value) for key, value in schema.items()}
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


def with_defaults(schema, value):
    """`value` with what its definition fills in."""
    if isinstance(value, list):
        return [with_defaults(schema.get("items", {}), one) for one in value]
    if not isinstance(value, dict):
        return value
    named = schema.get("properties", {})
    filled = {key: copy.deepcopy(one["default"]) for key, one in named.items() if "default" in one}
    return filled | {key: with_defaults(named.get(key, {}), one) for key, one in value.items()}


# The rules of the definition that are not a schema's but CEL's, which nothing here evaluates. A rule that is not among them is an error.
RULES = {
    "self.kind != 'Service' || has(self.port)": lambda held: held["kind"] != "Service" or "port" in held,
    "self.all(p1, self.exists_one(p2, p1.number==p2.number))": lambda held: len({port["number"] for port in held}) == len(held),
}


def obey(schema, value, where="$"):
    for rule in schema.get("x-kubernetes-validations", []):
        if not RULES[rule["rule"]](value):
            raise jsonschema.ValidationError(f"{where}: {rule['message']}")
    if isinstance(value, list):
        for at, one in enumerate(value):
            obey(schema.get("items", {}), one, f"{where}[{at}]")
    if isinstance(value, dict):
        for key, one in value.items():
            obey(schema.get("properties", {}).get(key, {}), one, f"{where}.{key}")


class Definition:
    """A CustomResourceDefinition that lies in schemas/."""

    def __init__(self, file):
        spec = yaml.safe_load((SCHEMAS / file).read_text())["spec"]
        self.group, self.kind = spec["group"], spec["names"]["kind"]
        self.versions = {version["name"]: version["schema"]["openAPIV3Schema"] for version in spec["versions"] if version["served"]}

    def kinds(self):
        return {(f"{self.group}/{version}", self.kind): (lambda document, schema=schema: self.validate(schema, document))
                for version, schema in self.versions.items()}

    @staticmethod
    def validate(schema, document):
        jsonschema.validate(document, shut(schema))
        obey(schema, with_defaults(schema, document))
        # A definition leaves the metadata to the API server.
        jsonschema.validate(document["metadata"], METADATA)


DEFINED = Definition("inferencepools.yaml").kinds()


def custom(document):
    """Whether a document is of one of these kinds; raises where it is and is not sound."""
    kind = (document["apiVersion"], document["kind"])
    if kind in DEFINED:
        DEFINED[kind](document)
    elif kind in CUSTOM:
        jsonschema.validate(document, CUSTOM[kind])
    else:
        return False
    return True
