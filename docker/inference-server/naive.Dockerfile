# The "before" of lab 4.4.1: what one writes first. It works; the lab measures what it costs.
ARG BUILDER_IMAGE
FROM ${BUILDER_IMAGE}
WORKDIR /app
COPY . .
ENV PYTHONPATH=/app
RUN --mount=type=secret,id=ca_bundle \
    if [ -s /run/secrets/ca_bundle ]; then export PIP_CERT=/run/secrets/ca_bundle; fi; \
    pip install -r requirements.txt
EXPOSE 8080
CMD ["python3", "-m", "inference_server", "serve"]
