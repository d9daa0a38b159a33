#!/usr/bin/env bash
# A real full disk: adapters on a file system of two megabytes, uploads until nothing fits, then a larger disk.
#
#   tests/stores/full_disk.sh target/release/dept
#
# The disk is a tmpfs in a mount namespace of its own, for which one must be root (or may make user namespaces).
set -euo pipefail
dept=$(realpath "${1:?the binary}")
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir "$work/disk"
own=(unshare --mount) enter=(nsenter --mount)
if [ "$(id -u)" != 0 ]; then own=(unshare --user --map-root-user --mount) enter=(nsenter --user --preserve-credentials --mount); fi
if ! "${own[@]}" bash -c 'mount -t tmpfs -o size=2m tmpfs "$1"' - "$work/disk" 2>/dev/null; then
    echo "skipped: this machine lets nobody mount a disk of their own"
    exit 0
fi

export DEPT_HOME=$root
"${own[@]}" bash -c '
    mount -t tmpfs -o size=2m tmpfs "$1/disk"
    exec "$2" serve --adapters "$1/disk" --adapters-interval 200ms --http 127.0.0.1:0 --grpc off --admin 127.0.0.1:0 --port-file "$1/ports"
' - "$work" "$dept" >"$work/log" 2>&1 &
server=$!
wait_for() { for _ in $(seq 300); do if "$@" >/dev/null 2>&1; then return 0; fi; sleep 0.1; done; echo "gave up on: $*"; cat "$work/log"; exit 1; }
wait_for test -s "$work/ports"
door() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$work/ports" "$1"; }
http=$(door http) admin=$(door admin)

status() { curl -s -o "$work/body" -w '%{http_code}' "$@"; }
expect() { # what is tried, the wanted status, curl's arguments
    local what=$1 wanted=$2 found; shift 2
    found=$(status "$@")
    if [ "$found" = "$wanted" ]; then echo "ok  $what"; else echo "BAD $what: $found, expected $wanted"; cat "$work/body" "$work/log"; exit 1; fi
}
upload() { # a name: every one has other content
    printf 'description = "%s"\n' "$1" >"$work/card"
    status -X PUT "$http/v1/adapters/$1" -F config=@"$root/adapters/sst2/adapter_config.json" \
        -F weights=@"$root/adapters/sst2/adapter_model.safetensors" -F card=@"$work/card"
}
ask() { printf '{"adapter": "%s", "prompt": "sentence: a warm and funny film ."}' "$1"; }
json=(-H 'content-type: application/json')
fault() { curl -s "$admin/metrics" | grep -F 'dept_adapter_store_fault{operation="write",reason="full"} '"$1"; }

stored=0
for at in $(seq 100); do
    found=$(upload "task-$at")
    [ "$found" = 201 ] || break
    stored=$at
done
[ "$stored" -ge 2 ] || { echo "BAD only $stored uploads fitted"; exit 1; }
[ "$found" = 507 ] || { echo "BAD upload $at: $found, expected 507"; cat "$work/body" "$work/log"; exit 1; }
grep -q '"adapter_capacity"' "$work/body"
grep -q 'the adapter store is full' "$work/body"
echo "ok  $stored uploads, and 507 for one more"
expect "what is stored is served" 200 "$http/v1/generate" "${json[@]}" -d "$(ask task-1)"
expect "the one that did not fit is not there" 404 "$http/v1/generate" "${json[@]}" -d "$(ask "task-$at")"
expect "the server is ready" 200 "$admin/health/ready"
grep -q '"status":"degraded"' "$work/body"
grep -q '"operation":"write","reason":"full"' "$work/body"
fault 1 >/dev/null; echo "ok  and says what is wrong, in its metrics too"
sleep 1 # some looks later it is so still
fault 1 >/dev/null; echo "ok  as long as it is so"

"${enter[@]}" --target "$server" mount -o remount,size=8m "$work/disk"
wait_for fault 0
expect "all is well on a larger disk" 200 "$admin/health/ready"
grep -qx '{"status":"ok"}' "$work/body"
[ "$(upload "task-$at")" = 201 ]; echo "ok  and takes what did not fit"
expect "which is served" 200 "$http/v1/generate" "${json[@]}" -d "$(ask "task-$at")"
[ "$(grep -c 'the adapter store fails' "$work/log")" = 1 ] || { echo "BAD more than one line in the log"; cat "$work/log"; exit 1; }
echo "ok  one line in the log"
