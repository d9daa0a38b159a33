#!/usr/bin/env bash
# A real collector (rotel, from PyPI) takes the spans of real requests over both doors: what OpenTelemetry's own types say in the
# tests, said by a program that others run.
#
#   tests/deploy/collector.sh target/release/dept
set -euo pipefail
dept=$(realpath "${1:?the binary}")
root=$(cd "$(dirname "$0")/../.." && pwd)
venv=$root/target/collector-venv
if [ ! -x "$venv/bin/buf" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check rotel==0.0.1a15 buf-bin==1.75.0
fi
agent=$("$venv/bin/python" -c 'import importlib.util, pathlib; print(pathlib.Path(importlib.util.find_spec("rotel").origin).with_name("rotel-agent"))')
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
wait_for() { for _ in $(seq 300); do if "$@" >/dev/null 2>&1; then return 0; fi; sleep 0.1; done; echo "BAD gave up on: $*"; cat "$work"/*.log; exit 1; }

collector=$(port)
# What comes is written out and kept nowhere.
NO_COLOR=1 "$agent" start --otlp-http-endpoint "127.0.0.1:$collector" --otlp-grpc-endpoint "127.0.0.1:$(port)" --batch-timeout 100ms \
    --exporter blackhole --debug-log traces --debug-log-verbosity detailed >"$work/collector.log" 2>&1 &
wait_for curl -s "127.0.0.1:$collector"
OTEL_SERVICE_NAME=dept-under-test DEPT_HOME=$root "$dept" serve --otlp-endpoint "http://127.0.0.1:$collector" --http 127.0.0.1:0 \
    --grpc 127.0.0.1:0 --admin 127.0.0.1:0 --port-file "$work/ports.json" >"$work/dept.log" 2>&1 &
server=$!
wait_for test -s "$work/ports.json"
address() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$work/ports.json" "$1"; }

trace=4bf92f3577b34da6a3ce929d0e0e4736
curl -sf "http://$(address http)/v1/generate" -H "traceparent: 00-$trace-00f067aa0ba902b7-01" -H 'x-request-id: over-http' \
    -H 'content-type: application/json' -d '{"adapter":"sst2","inputs":{"sentence":"a warm and funny film ."}}' >"$work/answer"
"$venv/bin/buf" curl --protocol grpc --http2-prior-knowledge -H 'x-request-id: over-grpc' -d '{"adapter":"sst2","text":"a warm and funny film ."}' \
    "http://$(address grpc)/dept.v1.InferenceService/Generate" >>"$work/answer"
kill -TERM "$server"
wait "$server"

# The collector writes what it took before the server has ended: the last spans are waited for by the drain.
said() { # what must be in the collector's words
    if grep -qF -- "$1" "$work/collector.log"; then echo "ok  the collector says: $1"; else echo "BAD it does not say: $1"; cat "$work"/*.log; exit 1; fi
}
wait_for grep -q over-grpc "$work/collector.log"
for words in "service.name: Str(dept-under-test)" "Trace ID       : $trace" "Parent ID      : 00f067aa0ba902b7" "text_completion sst2" \
    "queue" "prefill" "decode" "load_adapter" "dept.request.id: Str(over-http)" "dept.request.id: Str(over-grpc)" "url.scheme: Str(http)" \
    "rpc.system.name: Str(grpc)" "gen_ai.usage.input_tokens"; do
    said "$words"
done
if grep -qiE 'warm|funny|error' "$work/collector.log"; then echo "BAD a text or an error"; cat "$work/collector.log"; exit 1; fi
echo "ok  no text is in any span, and nothing failed"
