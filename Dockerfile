# The image that `make image` makes without Docker, for those who have it: docker build -t signet:0.1.0 .
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates cmake python3
WORKDIR /source
COPY . .
RUN cargo build --release --locked -p cli && \
    python3 e2e/tools/build-image --binary target/release/signet --rootfs /image

# Nothing but the program, its libraries and CA certificates: no shell.
FROM scratch
COPY --from=build /image /
USER 65532:65532
ENV PATH=/usr/bin:/opt/spire/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
ENTRYPOINT ["/usr/bin/signet"]
