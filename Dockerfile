# The sidecar alone: no Redis inside, since the nodes are elsewhere. Build: docker build -t ringfence .
# Run:   docker run --network host -v /etc/ringfence/proxy.toml:/etc/ringfence/proxy.toml:ro ringfence

FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY benches benches
COPY profiles profiles
COPY src src
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin ringfence \
    && strip -o /ringfence target/release/ringfence

FROM debian:bookworm-slim
COPY --from=build /ringfence /usr/local/bin/ringfence
# No account of the base image, and no name to look up.
USER 65532:65532
STOPSIGNAL SIGTERM
# No HEALTHCHECK: the image has no client to ask with. Point the orchestrator's probe at the admin port: /readyz.
ENTRYPOINT ["/usr/local/bin/ringfence"]
CMD ["serve", "--config", "/etc/ringfence/proxy.toml"]
