#!/usr/bin/env bash
# The gRPC door under clients that others made: buf's linter, formatter and curl, and the client that grpcio generates.
#
#   tests/clients/grpc.sh target/release/dept
set -euo pipefail
dept=$(realpath "${1:?the binary}")
root=$(cd "$(dirname "$0")/../.." && pwd)
venv=$root/target/grpc-venv
if [ ! -x "$venv/bin/buf" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check buf-bin==1.75.0 grpcio==1.85.1 grpcio-tools==1.85.1 \
        grpcio-health-checking==1.85.1 grpcio-reflection==1.85.1 grpcio-status==1.85.1
fi
bin=$venv/bin
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
ok() { echo "ok  $1"; }
fail() { echo "BAD $1"; cat "$work"/*.log; exit 1; }

(cd "$root/proto" && "$bin/buf" lint) && ok "buf lint finds nothing"
(cd "$root/proto" && "$bin/buf" format -d --exit-code) && ok "the protos are formatted"

# Adapters of its own, so that an upload leaves nothing behind in the repository.
mkdir "$work/adapters" && cp -r "$root/adapters/sst2" "$work/adapters/"
DEPT_HOME=$root "$dept" serve --adapters "$work/adapters" --http 127.0.0.1:0 --grpc 127.0.0.1:0 --admin 127.0.0.1:0 \
    --port-file "$work/ports.json" 2>"$work/dept.log" &
pid=$!
for _ in $(seq 600); do
    [ -s "$work/ports.json" ] && break
    kill -0 "$pid" 2>/dev/null || fail "the server does not start"
    sleep 0.1
done
grpc=$("$bin/python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["grpc"])' "$work/ports.json")

curl=("$bin/buf" curl --protocol grpc --http2-prior-knowledge)
list=$("${curl[@]}" --list-services "http://$grpc" | sort | tr '\n' ' ')
case $list in *dept.v1.AdapterService*dept.v1.InferenceService*grpc.health.v1.Health*) ok "reflection lists the services" ;;
*) fail "reflection lists: $list" ;; esac
answer=$("${curl[@]}" -d '{"adapter":"sst2","inputs":{"fields":{"sentence":"a warm , funny and moving film ."}}}' \
    "http://$grpc/dept.v1.InferenceService/Generate")
case ${answer// /} in *'"label":"positive"'*) ok "buf curl asks through reflection" ;; *) fail "buf curl: $answer" ;; esac
answer=$("${curl[@]}" -d '{"service":"dept.v1.InferenceService"}' "http://$grpc/grpc.health.v1.Health/Check")
case $answer in *SERVING*) ok "buf curl sees health" ;; *) fail "health: $answer" ;; esac

"$bin/python" -m grpc_tools.protoc -I"$root/proto" --python_out="$work" --grpc_python_out="$work" \
    "$root"/proto/dept/v1/*.proto
PYTHONPATH=$work PYTHONUNBUFFERED=1 timeout 60 "$bin/python" "$root/tests/clients/grpc_client.py" "$grpc" "$root/adapters/sst2" "$pid" || fail "the client"
wait "$pid" || fail "the server did not end well"
ok "the server drained and ended well"
