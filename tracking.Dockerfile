# The MLflow server of compose.yaml and deploy/team: mlflow as locked for development, and EXTRA.
ARG BASE=python:3.11-slim
FROM ${BASE}
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_DEFAULT_TIMEOUT
ARG EXTRA
COPY requirements/dev.lock /tmp/dev.lock
# As constraints, the lock's versions hold and its hashes do not.
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --quiet --disable-pip-version-check \
        --constraint /tmp/dev.lock mlflow ${EXTRA}
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin tracking \
    && install -d -o tracking -g tracking /store
ENV PATH=/opt/venv/bin:$PATH
USER tracking
WORKDIR /store
VOLUME /store
EXPOSE 5000
