#!/usr/bin/env bash
# Stand-ins for the Dockerfile's two bases where no image registry answers: made of Debian 12's packages, which the real ones are
# made of too, under the names that are given.
#
#   tests/deploy/image_bases.sh RUST_IMAGE BASE_IMAGE BUILDAH…       BUILDAH…: the command with its --root and --runroot
#
# The first is Debian with a C compiler; whoever builds on it mounts a Rust toolchain at /usr/local/rust. The second holds the
# packages of distroless/cc and their entries in the package database, no shell and no package manager.
set -euo pipefail
rust_image=$1 base_image=$2; shift 2
buildah=("$@")
. /etc/os-release
[ "$VERSION_CODENAME" = bookworm ] || { echo "the stand-ins are made on Debian 12 (bookworm), this is $PRETTY_NAME"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev bookworm "$work/rust" http://deb.debian.org/debian >"$work/log" 2>&1 ||
    { tail -20 "$work/log"; exit 1; }
rm -rf "$work/rust/var/cache/apt" "$work/rust/var/lib/apt/lists"
tar -C "$work/rust" -cf "$work/rust.tar" .
cat >"$work/Dockerfile" <<'DOCKERFILE'
FROM scratch
ADD rust.tar /
ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin CARGO_HOME=/usr/local/cargo
DOCKERFILE
"${buildah[@]}" bud --isolation chroot --format docker -q -t "$rust_image" -f "$work/Dockerfile" "$work" >/dev/null

root=$work/base
mkdir -p "$work/debs" "$root/var/lib/dpkg/status.d" "$root/home/nonroot"
(cd "$work/debs" && apt-get download -qq base-files ca-certificates libc6 libgcc-s1 libgomp1 libssl3 libstdc++6 netbase tzdata 2>/dev/null)
for deb in "$work"/debs/*.deb; do
    dpkg-deb -x "$deb" "$root"
    dpkg-deb -f "$deb" >"$root/var/lib/dpkg/status.d/$(dpkg-deb -f "$deb" Package)"
done
# What the packages' own scripts would do.
mkdir -p "$root/etc/ssl/certs" "$root/tmp"
chmod 1777 "$root/tmp"
cat "$root"/usr/share/ca-certificates/mozilla/*.crt >"$root/etc/ssl/certs/ca-certificates.crt"
rm -rf "$root"/usr/share/{doc,man,locale,lintian,bug}
cat >"$root/etc/passwd" <<'PASSWD'
root:x:0:0:root:/root:/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin
nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin
PASSWD
printf 'root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n' >"$root/etc/group"
tar -C "$root" -cf "$work/base.tar" .
cat >"$work/Dockerfile" <<'DOCKERFILE'
FROM scratch
ADD base.tar /
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
DOCKERFILE
"${buildah[@]}" bud --isolation chroot --format docker -q -t "$base_image" -f "$work/Dockerfile" "$work" >/dev/null
