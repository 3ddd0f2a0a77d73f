# Debian's package of the Distribution registry, for machines that can't pull the official image.
ARG OS_IMAGE
FROM ${OS_IMAGE}
RUN apt-get update && apt-get install -y --no-install-recommends docker-registry && rm -rf /var/lib/apt/lists/* \
 && printf 'version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: /var/lib/docker-registry\n  delete:\n    enabled: true\nhttp:\n  addr: :5000\n' > /etc/docker-registry.yml
EXPOSE 5000
USER docker-registry
ENTRYPOINT ["docker-registry"]
CMD ["serve", "/etc/docker-registry.yml"]
