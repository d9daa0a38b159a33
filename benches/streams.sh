#!/usr/bin/env bash
# Many streams at once: opens N streaming connections at the same moment, says how many the server held, what memory they took, and
# that every one was answered whole.
#
#   benches/streams.sh target/release/dept [N]
set -euo pipefail
dept=$(realpath "${1:?usage: benches/streams.sh PATH_TO_DEPT [N]}")
streams=${2:-2000}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
# One descriptor a stream, for the server (which raises its own limit as far as it may) and for the client.
ulimit -n $((streams + 512)) 2>/dev/null || { echo "the limit on open files is $(ulimit -Hn): $streams streams need more"; exit 1; }

DEPT_HOME=$root "$dept" serve --http 127.0.0.1:0 --grpc off --admin 127.0.0.1:0 --port-file "$work/ports.json" \
    --queue-requests "$((2 * streams))" --queue-tokens 16777216 >"$work/log" 2>&1 &
server=$!
for _ in $(seq 600); do
    [ -s "$work/ports.json" ] && break
    kill -0 "$server" 2>/dev/null || { cat "$work/log"; exit 1; }
    sleep 0.1
done
http=$(sed 's/.*"http":"\([^"]*\)".*/http:\/\/\1/' "$work/ports.json")
memory() { sed -n "s/^$1:[[:space:]]*\([0-9]*\) kB/\1/p" "/proc/$server/status"; }
bench() { "$dept" bench --server "$http" --adapters sst2,trec,subj,- --output-tokens 4 --timeout 300s --warmup 0 --json "$work/$1.json" "${@:2}"; }
field() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["requests"][sys.argv[2]])' "$work/$1.json" "$2"; }

# Everything that is made once is there before the first look.
bench first --concurrency 64 --requests 256 >/dev/null
before=$(memory VmRSS)
(
    most=0
    while kill -0 "$server" 2>/dev/null; do
        now=$(find "/proc/$server/fd" -lname 'socket:*' 2>/dev/null | wc -l)
        [ "$now" -gt "$most" ] && most=$now && echo "$most" >"$work/most"
        sleep 0.05
    done
) &
bench many --concurrency "$streams" --requests "$streams"
peak=$(memory VmHWM)
sleep 1
after=$(memory VmRSS)
printf '%s streams at once: %s answered whole, %s sockets open at the most\n' "$streams" "$(field many ok)" "$(cat "$work/most")"
printf 'resident memory: %d MiB before, %d MiB at the peak (%d KiB a stream), %d MiB after\n' \
    $((before / 1024)) $((peak / 1024)) $(((peak - before) / streams)) $((after / 1024))
[ "$(field many ok)" = "$streams" ] || { tail -3 "$work/log"; echo "not all streams were answered"; exit 1; }
