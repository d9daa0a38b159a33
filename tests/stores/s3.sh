#!/usr/bin/env bash
# Two servers on one S3 bucket, on a real S3 server (moto, from PyPI): uploads, conditions, deletions seen by the other.
#
#   tests/stores/s3.sh target/release/dept
set -euo pipefail
dept=$(realpath "${1:?the binary}")
root=$(cd "$(dirname "$0")/../.." && pwd)
venv=$root/target/s3-venv
if [ ! -x "$venv/bin/moto_server" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet 'moto[s3,server]==5.1.*' 'boto3==1.*'
fi
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$venv/bin/moto_server" -H 127.0.0.1 -p "$port" >"$work/moto.log" 2>&1 &
export DEPT_HOME=$root AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=y AWS_REGION=us-east-1
export AWS_ENDPOINT=http://127.0.0.1:$port AWS_ALLOW_HTTP=true

wait_for() { for _ in $(seq 300); do if "$@" >/dev/null 2>&1; then return 0; fi; sleep 0.1; done; echo "gave up on: $*"; exit 1; }
wait_for curl -sf "$AWS_ENDPOINT/moto-api/"
"$venv/bin/python" -c "
import boto3
boto3.client('s3', endpoint_url='$AWS_ENDPOINT', region_name='us-east-1').create_bucket(Bucket='adapters')"
for name in a b; do
    "$dept" serve --adapters s3://adapters/team --adapters-interval 200ms --http 127.0.0.1:0 --grpc off --admin 127.0.0.1:0 \
        --port-file "$work/$name.json" >"$work/$name.log" 2>&1 &
done
wait_for test -s "$work/a.json" -a -s "$work/b.json"
address() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["http"])' "$work/$1.json"; }
a=$(address a) b=$(address b)

cd "$root/adapters/sst2"
files=(-F config=@adapter_config.json -F weights=@adapter_model.safetensors)
status() { curl -s -o "$work/body" -w '%{http_code}' "$@"; }
expect() { # what is tried, the wanted status, curl's arguments
    local what=$1 wanted=$2 found; shift 2
    found=$(status "$@")
    if [ "$found" = "$wanted" ]; then echo "ok  $what"; else echo "BAD $what: $found, expected $wanted"; cat "$work/body" "$work"/*.log; exit 1; fi
}
eventually() { local wanted=$1; shift; wait_for bash -c "[ \"\$(curl -s -o /dev/null -w '%{http_code}' $*)\" = $wanted ]"; }

expect "an upload to one server" 201 -X PUT "$a/v1/adapters/task" "${files[@]}" -F card=@card.toml
expect "the other has it at its first use" 200 "$b/v1/generate" -H 'content-type: application/json' \
    -d '{"adapter":"task","inputs":{"sentence":"a warm and funny film ."}}'
grep -q '"label":"positive"' "$work/body"
tag=$(curl -s -D - -o /dev/null "$b/v1/adapters/task" | tr -d '\r' | sed -n 's/^etag: //p')
expect "a change of what was seen" 200 -X PUT "$b/v1/adapters/task" -H "if-match: $tag" "${files[@]}"
expect "a change of what is no longer so" 412 -X PUT "$a/v1/adapters/task" -H "if-match: $tag" "${files[@]}"
expect "no second one of the name" 412 -X PUT "$a/v1/adapters/task" -H 'if-none-match: *' "${files[@]}"
expect "a deletion" 204 -X DELETE "$a/v1/adapters/task"
eventually 404 "$b/v1/adapters/task"; echo "ok  the other sees it"
expect "the name is free again" 201 -X PUT "$b/v1/adapters/task" -H 'if-none-match: *' "${files[@]}"
eventually 200 "$a/v1/adapters/task"; echo "ok  and sees that"
