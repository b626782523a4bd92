# The server's own image. Sandboxes are containers beside it, so it needs the Docker socket and a
# state folder that has the same path inside and outside. deploy/compose.yaml starts it so;
# docs/deploy.md tells the rest. A run by hand:
#
#   docker run --rm -v /var/run/docker.sock:/var/run/docker.sock \
#     -v /var/lib/runbookd:/var/lib/runbookd --group-add "$(stat -c %g /var/run/docker.sock)" \
#     runbookd demo --engine docker --results /var/lib/runbookd/results
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
COPY src src
COPY runbooks runbooks
COPY snapshots snapshots
COPY benches benches
COPY tests/integration/main.rs tests/integration/main.rs
COPY tests/architecture.rs tests/architecture.rs
RUN cargo build --release --locked --bin runbookd

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --home-dir /var/lib/runbookd --create-home runbookd
COPY --from=build /src/target/release/runbookd /usr/local/bin/runbookd
USER runbookd
ENV RUNBOOKD_STATE=/var/lib/runbookd/state RUNBOOKD_CACHE=/var/lib/runbookd/cache
WORKDIR /var/lib/runbookd
ENTRYPOINT ["runbookd"]
# Where the server listens inside; deploy/compose.yaml opens it to other machines on purpose.
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["runbookd", "health", "--server", "http://127.0.0.1:8000"]
CMD ["serve"]
