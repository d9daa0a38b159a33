# The server with its embedded model and adapters.
#
#   docker build -t dept .
#   docker run --rm -p 8080:8080 -e DEPT_ALLOW_ANONYMOUS=true dept
#
# The bases are pinned by version here; pin them by digest in your own registry (--build-arg BASE_IMAGE=…@sha256:…).
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-slim-bookworm
ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUST_IMAGE} AS build
# One C compiler, for two dependencies; the rust images have it.
WORKDIR /src
# The dependencies alone first: this layer is built anew only when they change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches tests/it \
 && printf 'fn main() {}\n' | tee src/main.rs > tests/it/main.rs \
 && for bench in $(sed -n '/^\[\[bench\]\]/,/^$/s/^name = "\(.*\)"/\1/p' Cargo.toml); do printf 'fn main() {}\n' > "benches/$bench.rs"; done \
 && touch src/lib.rs \
 && cargo build --locked --release \
 && rm -rf src benches tests
COPY . .
# Cargo goes by times, and what was just made up is newer than what was copied.
RUN find src build.rs -exec touch {} + 2>/dev/null; cargo build --locked --release \
 && install -D target/release/dept /out/usr/local/bin/dept \
 && mkdir -p /out/usr/local/share/dept/models /out/var/lib/dept \
 && cp -r models/flan-t5-small-en /out/usr/local/share/dept/models/ \
 && cp -r adapters /out/usr/local/share/dept/adapters \
 && cp LICENSE-APACHE LICENSE-MIT Cargo.lock /out/usr/local/share/dept/

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="dept" \
      org.opencontainers.image.description="A server for soft-prompt adapters: one frozen backbone, thousands of DePT adapters, one batch" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build --chown=65532:65532 /out/ /
# Beyond loopback a server without keys needs the word: DEPT_API_KEYS=/path/keys.toml or DEPT_ALLOW_ANONYMOUS=true.
ENV DEPT_HTTP=0.0.0.0:8080 \
    DEPT_GRPC=0.0.0.0:50051 \
    DEPT_ADMIN=0.0.0.0:8081 \
    DEPT_LOG_FORMAT=json
USER 65532:65532
WORKDIR /var/lib/dept
EXPOSE 8080 50051 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=30s CMD ["/usr/local/bin/dept", "health"]
ENTRYPOINT ["/usr/local/bin/dept"]
CMD ["serve"]
