# The environment of the pipeline, for a team's runner: requirements/dev.lock as `make setup` installs
# it, and git. A checkout is mounted at /work, and every stage writes the bytes of dvc.lock:
#
#   docker build -f training.Dockerfile -t arithmetic-lm-training .
#   docker run --user $(id -u) --volume "$PWD:/work" arithmetic-lm-training dvc repro
#
# Only instructions of the classic builder: no BuildKit needed.
ARG BASE=python:3.11-slim
FROM ${BASE}
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends git >/dev/null \
    && rm -rf /var/lib/apt/lists/* \
    # The checkout belongs to another user.
    && git config --system --add safe.directory '*'
# pip's own variables, by --build-arg where a network needs them.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_DEFAULT_TIMEOUT
WORKDIR /opt/arithmetic-lm
COPY requirements/dev.lock requirements/
COPY scripts/setup.sh scripts/
RUN scripts/setup.sh && rm -rf /root/.cache
ENV PATH=/opt/arithmetic-lm/.venv/bin:$PATH HOME=/tmp DVC_NO_ANALYTICS=1 \
    MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true
LABEL org.opencontainers.image.title="arithmetic-lm-training" \
    org.opencontainers.image.description="The packages that train and evaluate arithmetic-lm" \
    org.opencontainers.image.licenses="MIT"
WORKDIR /work
CMD ["dvc", "repro"]
