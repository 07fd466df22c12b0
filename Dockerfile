# The serving image: FastAPI on uvicorn, answering by onnxruntime. It holds no model. The container
# pulls the version that MODEL_URI names from MLFLOW_TRACKING_URI when it starts.
# Only instructions that the classic builder knows: no BuildKit needed.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
# pip's own variables, given by --build-arg where a network needs them; this stage is not shipped.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_DEFAULT_TIMEOUT
COPY requirements/serving.lock /tmp/serving.lock
# pip works from an environment of its own, so that none is in the one that is shipped.
RUN python3 -m venv /opt/pip \
    && python3 -m venv --without-pip /opt/venv \
    && /opt/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir --quiet \
        --disable-pip-version-check --only-binary :all: --require-hashes -r /tmp/serving.lock \
    # Packages' own tests: 20 MB that are never run here.
    && find /opt/venv -type d -name tests -prune -exec rm -r {} +

FROM ${BASE}
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin service
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
# Code last: a change to it rebuilds nothing above.
COPY arithmetic/__init__.py arithmetic/bundle.py arithmetic/config.py arithmetic/engine.py \
     arithmetic/errors.py arithmetic/grammar.py arithmetic/judging.py arithmetic/layouts.py arithmetic/steps.py \
     arithmetic/tokenizer.py arithmetic/written.py arithmetic/
COPY registry/__init__.py registry/errors.py registry/history.py registry/inputs.py \
     registry/operator.py registry/pull.py registry/signature.py registry/
COPY serving/ serving/
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOST=0.0.0.0 PORT=8000 \
    LOG_FORMAT=json
USER service
EXPOSE 8000
# Healthy means that a model is loaded: /health says so and answers 503 otherwise.
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 CMD ["python", "-c", \
    "import json, os, urllib.request as r; u = 'http://127.0.0.1:%s/health' % os.environ['PORT']; exit(not json.load(r.urlopen(u, timeout=2))['model_loaded'])"]
CMD ["python", "-m", "serving"]
