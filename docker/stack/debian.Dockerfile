# The stack's services from packages, for where no image registry answers (IMAGES=debian). One target a service; each is run
# by its compose.yaml entry with the same command, ports, volumes and health check as the registry's image.
ARG BASE_IMAGE

FROM ${BASE_IMAGE} AS packages
# Installs packages and leaves nothing of the installing behind.
COPY --chmod=755 install-packages /usr/local/bin/

FROM packages AS nginx
# light has what the stack uses (TLS, limits, real addresses); stream opens the development door to the vector database
RUN install-packages nginx-light libnginx-mod-stream
# the same number as in the registry's image
USER 101:101
ENTRYPOINT []
CMD ["nginx", "-g", "daemon off;"]

FROM packages AS chroma
# The wheel holds Chroma's own Rust server; its other dependencies are for using Chroma inside a Python program.
COPY chroma/requirements.txt chroma/serve.py /opt/chroma/
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=ca_bundle \
    if [ -s /run/secrets/ca_bundle ]; then export PIP_CERT=/run/secrets/ca_bundle; fi; \
    install-packages python3-pip \
 && python3 -m pip install --no-deps --require-hashes --no-compile --disable-pip-version-check --target /opt/chroma/packages -r /opt/chroma/requirements.txt \
 && apt-get purge -y --auto-remove python3-pip && rm -rf /var/log/apt /var/log/dpkg.log
RUN mkdir /data && chown 10004:10004 /data
USER 10004:10004
ENTRYPOINT ["python3", "/opt/chroma/serve.py"]
CMD ["run", "/config.yaml"]

FROM packages AS prometheus
RUN install-packages prometheus && mkdir /prometheus && chown 65534:65534 /prometheus
USER 65534:65534
ENTRYPOINT ["prometheus"]

FROM packages AS alertmanager
RUN install-packages prometheus-alertmanager
USER 65534:65534
ENTRYPOINT ["prometheus-alertmanager"]

FROM packages AS blackbox
RUN install-packages prometheus-blackbox-exporter
USER 65534:65534
ENTRYPOINT ["prometheus-blackbox-exporter"]

FROM packages AS redis
RUN install-packages redis-server
USER 10005:10005
# As the registry's image does it: who shares a network with Redis may ask it, so give it a network of few.
ENTRYPOINT ["sh", "-c", "case $1 in redis-server) set -- \"$@\" --protected-mode no ;; esac; exec \"$@\"", "--"]
CMD ["redis-server"]
