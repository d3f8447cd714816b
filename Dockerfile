# The image of the job: the program, a shell and the few tools that runners use, public CA roots. Nothing else.
#
#   docker build .                                                      builds the program too
#   docker build --build-context build=DIR .                            assembles around DIR/<amd64|arm64>/credential-rotator
#   docker buildx build --platform linux/amd64,linux/arm64 --build-context build=DIR .
#
# The last stage runs nothing, so that one machine assembles both platforms, and the same binary makes the same image:
# set SOURCE_DATE_EPOCH (buildah: --timestamp) and compare digests. What was tested is what is released.
#
# The digests are those of the indexes for all platforms. Change tag and digest together.
ARG BUILD_IMAGE=docker.io/library/rust:1.95-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082
ARG ROOTS_IMAGE=docker.io/library/alpine:3.23@sha256:85fe1e81d6758c208f3e1eed4338a1997e19d4be002d4dd32d3100c9a8c010a0
ARG BASE_IMAGE=docker.io/library/busybox:1.37.0-musl@sha256:5cec3fc171c87218698e85a52af7087de727372aae264a787b8112901a5b0092

FROM ${BUILD_IMAGE} AS build
ARG TARGETARCH
WORKDIR /src
COPY . .
RUN .ci/image/build.sh "/${TARGETARCH}"

FROM ${ROOTS_IMAGE} AS roots

# Runners need `sh` and `grep` (docker), `tee` (kubernetes), and mkdir, rm, cat, chmod, sleep and the like for files,
# caches and cancelling: busybox has them all. Scratch and distroless do not work.
FROM ${BASE_IMAGE}
ARG TARGETARCH
# One store for both TLS clients of the program: AWS' and GitLab's.
COPY --from=roots --chmod=0644 /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chmod=0755 /${TARGETARCH}/credential-rotator /usr/local/bin/credential-rotator
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    HOME=/tmp
# By number, for clusters that ask for a user who is not root. Any other number works as well: /tmp is open to all.
USER 65534:65534
# No ENTRYPOINT: runners start a shell in this image and write the script of the job to it.
CMD ["credential-rotator", "--help"]

ARG VERSION=0.0.0
ARG REVISION=unknown
ARG SOURCE=https://gitlab.com/acme/credential-rotator
LABEL org.opencontainers.image.title="credential-rotator" \
      org.opencontainers.image.description="Rotates the AWS IAM access key of a GitLab project and the CI/CD variables that hold it" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
