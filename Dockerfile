# syntax=docker/dockerfile:1
# A relay in a container: `docker build -t reveille .`, then docs/operations/README.md, or compose.yaml.
#
# Tags move. Who wants the same bytes next year pins both images by digest (`docker buildx imagetools inspect IMAGE`); Cargo.lock pins the rest.
# Both images are Debian 12, so that the binary finds the glibc it was linked with.
ARG RUST_VERSION=1.95

FROM rust:${RUST_VERSION}-slim-bookworm AS build
ARG TARGETPLATFORM
WORKDIR /src
COPY . .
# Dependencies are compiled once and kept in cache mounts, beside the layers, for each platform. cargo tells by its time whether a file has
# changed, and the times of a build context may be older than the cache: so the crate itself is always compiled.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=reveille-target-${TARGETPLATFORM},target=/src/target,sharing=locked \
    touch src/lib.rs src/main.rs \
    && cargo build --release --locked --bin reveille \
    && install -D target/release/reveille /out/reveille \
    && mkdir /out/data

FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="Reveille" \
      org.opencontainers.image.description="A push relay for mobile backends: it wakes the app; the app asks for the truth." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/reveille /usr/local/bin/reveille
COPY LICENSE /usr/share/doc/reveille/LICENSE
# A new volume takes over the owner of the folder that it covers; root's could not be written to.
COPY --from=build --chown=65532:65532 /out/data /data
ENV REVEILLE_LISTEN=0.0.0.0:8080 \
    REVEILLE_DATABASE_URL=sqlite:/data/reveille.db
# `nonroot`, as a number: Kubernetes' runAsNonRoot wants one.
USER 65532:65532
WORKDIR /data
VOLUME /data
EXPOSE 8080
# There is no HEALTHCHECK: the image has no shell and no curl, and the relay has no command that asks itself. Ask from outside:
# /healthz tells whether the process lives, /readyz whether it should be sent requests.
#
# After SIGTERM it gives calls to providers up to 20 s; Docker kills after 10 s if not told otherwise: `docker run --stop-timeout 45`.
ENTRYPOINT ["/usr/local/bin/reveille"]
CMD ["serve"]
