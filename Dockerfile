# The server with its embedded model and adapters. `just image` builds it and tries it.
#
#   docker build -t dept .
#   docker run --rm -p 8080:8080 -e DEPT_ALLOW_ANONYMOUS=true dept
#
# The bases are named by version; a registry of your own pins them by digest: --build-arg BASE_IMAGE=…@sha256:…
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-slim-bookworm
ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot

# What others wrote: built anew when Cargo.lock or Cargo.toml changes, and only then.
FROM ${RUST_IMAGE} AS dependencies
# The list of crates inside the binary, from which an SBOM is read.
RUN cargo install --locked --root /usr/local cargo-auditable@0.7.7
WORKDIR /src
# Lines in backtraces would make the binary five times as large; a panic names its line without.
ENV CARGO_PROFILE_RELEASE_DEBUG=none
COPY Cargo.toml Cargo.lock ./
# Cargo wants a file for each target that Cargo.toml names. It goes by times, and what is made up here is newer than what
# will be copied: so none of it stays.
# hadolint ignore=SC2013
RUN mkdir -p src benches tests/it \
 && touch src/lib.rs tests/it/main.rs \
 && for bench in $(sed -n '/^\[\[bench\]\]/,/^$/s/^name = "\(.*\)"/\1/p' Cargo.toml); do touch "benches/$bench.rs"; done \
 && printf 'fn main() {}\n' > src/main.rs \
 && cp src/main.rs build.rs \
 && cargo auditable build --locked --release --bin dept \
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

FROM ${BASE_IMAGE}
# What changes least comes first: a new version of the server is one small layer.
COPY models/flan-t5-small-en /usr/local/share/dept/models/flan-t5-small-en
COPY LICENSE-APACHE LICENSE-MIT /usr/local/share/dept/
# The adapters in the box, and beside them what is uploaded: a volume goes here.
COPY --chown=65532:65532 adapters /var/lib/dept
COPY deploy/image/dept.toml /etc/dept/dept.toml
COPY --from=build /out /usr/local
ENV DEPT_CONFIG=/etc/dept/dept.toml
USER 65532:65532
WORKDIR /var/lib/dept
EXPOSE 8080 50051 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=30s CMD ["/usr/local/bin/dept", "health"]
ENTRYPOINT ["/usr/local/bin/dept"]
CMD ["serve"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="dept" \
      org.opencontainers.image.description="A server for soft-prompt adapters: one frozen backbone, thousands of DePT adapters, one batch" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
