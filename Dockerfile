# The server with its embedded model and adapters. `just image` builds it and tries it.
#
#   docker build -t dept .
#   docker run --rm -p 8080:8080 -e DEPT_ALLOW_ANONYMOUS=true dept
#
# The same with CUDA, for machines with a GPU (docs/gpu.md): `just image-cuda`.
#
#   docker build --target cuda -t dept:cuda .
#   docker run --rm --gpus all -p 8080:8080 -e DEPT_ALLOW_ANONYMOUS=true dept:cuda
#
# The bases are pinned: who changes a tag changes its digest with it, which `docker buildx imagetools inspect IMAGE:TAG` tells.
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082
ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot@sha256:9dac0a79194e45a7da0158a9c6da57b217585af0786db3845d1f0ec1a0dd182f

FROM ${RUST_IMAGE} AS tools
# The list of crates inside the binary, from which an SBOM is read.
RUN cargo install --locked --root /usr/local cargo-auditable@0.7.7
WORKDIR /src
# Lines in backtraces would make the binary five times as large; a panic names its line without.
ENV CARGO_PROFILE_RELEASE_DEBUG=none

# What names the dependencies. Cargo wants a file for each target that Cargo.toml names, so some are made up.
FROM tools AS manifest
COPY Cargo.toml Cargo.lock ./
# hadolint ignore=SC2013
RUN mkdir -p src benches tests/it \
 && touch src/lib.rs tests/it/main.rs \
 && for bench in $(sed -n '/^\[\[bench\]\]/,/^$/s/^name = "\(.*\)"/\1/p' Cargo.toml); do touch "benches/$bench.rs"; done \
 && printf 'fn main() {}\n' > src/main.rs \
 && cp src/main.rs build.rs

# What others wrote: built anew when Cargo.lock or Cargo.toml changes, and only then.
FROM tools AS dependencies
COPY --from=manifest /src ./
# Cargo goes by times, and what is made up is newer than what will be copied: so none of it stays.
RUN cargo auditable build --locked --release --bin dept \
 && cargo clean --locked --release -p dept \
 && rm -r src build.rs

FROM dependencies AS build
COPY build.rs ./
COPY proto proto
COPY src src
RUN cargo auditable build --locked --release --bin dept \
 && install -D target/release/dept /out/bin/dept \
 && mkdir -p /out/share/dept \
 && ln -s /var/lib/dept /out/share/dept/adapters

# The CUDA toolkit, from NVIDIA's wheels, and the C++ compiler that nvcc asks for. /out is what the server needs of it.
FROM tools AS cuda-tools
# Debian keeps only the newest build of a package: a version named here would be gone one day.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ python3-pip \
 && rm -rf /var/lib/apt/lists/*
COPY .ci/cuda-requirements.txt .ci/
COPY deploy/image/cuda-requirements.txt deploy/image/
# candle's kernels become PTX of this architecture, which the driver compiles for newer ones too.
ENV CUDA_HOME=/opt/wheels/nvidia/cu13 CUDA_COMPUTE_CAP=80
ENV PATH=${CUDA_HOME}/bin:${PATH}
# A linker wants names without a version, and a loader those with one. NVRTC opens its builtins by itself.
# The wheels' own words on version and licence go along, for an SBOM and because the licence asks for it.
RUN python3 -m pip install --no-cache-dir --disable-pip-version-check --target /opt/wheels -r deploy/image/cuda-requirements.txt \
 && for library in cudart cublas cublasLt curand nvrtc; do ln -s "$(basename "$CUDA_HOME/lib/lib$library.so."*)" "$CUDA_HOME/lib/lib$library.so"; done \
 && mkdir -p /out/lib64 \
 && for library in cudart cublas cublasLt curand nvrtc nvrtc-builtins; do cp "$CUDA_HOME/lib/lib$library.so."* /out/lib64/; done \
 && for wheel in cublas cuda_nvrtc cuda_runtime curand; do cp -r "/opt/wheels/nvidia_$wheel"-*.dist-info /out/; done

# As above: what others wrote, candle's kernels among it, which take nvcc 13 minutes of a core.
FROM cuda-tools AS cuda-dependencies
COPY --from=manifest /src ./
COPY .ci/made_up .ci/
# The driver's own library comes from the machine that runs the image; one that is made up is enough to link with.
RUN cargo fetch --locked \
 && mkdir "$CUDA_HOME/lib/stubs" \
 && .ci/made_up driver "$CUDA_HOME/lib/stubs/libcuda.so" libcuda.so.1 \
 && cargo auditable build --locked --release --features cuda --bin dept \
 && cargo clean --locked --release -p dept \
 && rm -r src build.rs

FROM cuda-dependencies AS cuda-build
COPY build.rs ./
COPY proto proto
COPY src src
# Who takes this image wants a GPU: without one it says so, and does not compute on the CPU unasked.
COPY deploy/image/dept.toml /server/etc/dept/
RUN cargo auditable build --locked --release --features cuda --bin dept \
 && install -D target/release/dept /server/usr/local/bin/dept \
 && mkdir -p /server/usr/local/share/dept \
 && ln -s /var/lib/dept /server/usr/local/share/dept/adapters \
 && echo 'device = "cuda:0"' >>/server/etc/dept/dept.toml

# All but the binary.
FROM ${BASE_IMAGE} AS server
# What changes least comes first: a new version of the server is one small layer.
COPY models/flan-t5-small-en /usr/local/share/dept/models/flan-t5-small-en
COPY LICENSE-APACHE LICENSE-MIT /usr/local/share/dept/
# The adapters in the box, and beside them what is uploaded: a volume goes here.
COPY --chown=65532:65532 adapters /var/lib/dept
COPY deploy/image/dept.toml /etc/dept/dept.toml
ENV DEPT_CONFIG=/etc/dept/dept.toml
USER 65532:65532
WORKDIR /var/lib/dept
EXPOSE 8080 50051 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=30s CMD ["/usr/local/bin/dept", "health"]
ENTRYPOINT ["/usr/local/bin/dept"]
CMD ["serve"]
LABEL org.opencontainers.image.title="dept" \
      org.opencontainers.image.description="A server for soft-prompt adapters: one frozen backbone, thousands of DePT adapters, one batch" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"

FROM server AS cuda
COPY --from=cuda-tools /out /usr/local/cuda
COPY --from=cuda-build /server /
# The second folder is where some clusters put the driver. The others are for NVIDIA's container toolkit, which brings it elsewhere: what it
# gives to the container, and that a driver older than this CUDA is refused.
ENV LD_LIBRARY_PATH=/usr/local/cuda/lib64:/usr/local/nvidia/lib64 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_REQUIRE_CUDA="cuda>=13.0"
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# The last one is what `docker build` makes unasked.
FROM server AS cpu
COPY --from=build /out /usr/local
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
