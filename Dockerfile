# The serving image; it holds no model. The container downloads the version that MODEL_URI names:
#
#   docker build -t arithmetic-lm --build-arg REVISION=$(git rev-parse HEAD) .
#   docker run -p 8000:8000 -e MLFLOW_TRACKING_URI=http://… -e MODEL_URI=models:/arithmetic-lm/2 arithmetic-lm
#
# Only instructions of the classic builder: no BuildKit needed.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
# pip's own variables, by --build-arg where a network needs them; this stage is not shipped.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_DEFAULT_TIMEOUT
COPY requirements/serving.lock /tmp/serving.lock
# pip works from an environment of its own, so that the shipped one has none. The lock is complete:
# it leaves out what the service never imports (requirements/serving-excludes.txt).
RUN python3 -m venv /opt/pip \
    && python3 -m venv --without-pip /opt/venv \
    && /opt/pip/bin/pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --quiet \
        --disable-pip-version-check --only-binary :all: --require-hashes --no-deps -r /tmp/serving.lock
# What the service never reads.
RUN cd /opt/venv/lib/python3*/site-packages \
    # The C library; the Python module has its own copy of ONNX Runtime.
    && rm onnxruntime/capi/libonnxruntime.so.* \
    # Tools that make models, and a compiler front end for Fortran.
    && rm -r numpy/f2py onnxruntime/quantization onnxruntime/tools onnxruntime/transformers \
    # A client of Databricks' servers; MLflow only looks whether the package exists.
    && rm -r databricks/sdk \
    # Packages' own tests, and types for checkers.
    && find . \( -type d -name tests -o -name '*.pyi' \) -prune -exec rm -r {} +
# Debug symbols, most of them uvloop's. strip breaks libraries that auditwheel patched, in *.libs.
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends binutils >/dev/null \
    && find /opt/venv -name '*.so*' -type f -not -path '*.libs/*' -exec strip --strip-unneeded {} +
# Bytecode of what a start imports, a third of all modules; tests/serving/test_image.py compares.
RUN /opt/venv/bin/python -c "import cryptography.hazmat.backends.openssl, dotenv, email_validator, \
fastapi.middleware.cors, fastapi_offline, httptools, mlflow.artifacts, \
mlflow.tracking.request_header.registry, model_signing.verifying, numpy, onnxruntime, OpenSSL, \
platformdirs, prometheus_client, pydantic.v1, pydantic_settings, pythonjsonlogger.json, \
uvicorn.protocols.http.httptools_impl, uvloop"

FROM ${BASE}
# The cache's owner and mode go into a named volume that is mounted there.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin service \
    && install -d -o service -g service -m 0700 /var/cache/arithmetic-lm
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
# Code last: a change to it rebuilds nothing above.
COPY arithmetic/ arithmetic/
COPY registry/ registry/
COPY serving/ serving/
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 PORT=8000 LOG_FORMAT=json MODEL_CACHE=/var/cache/arithmetic-lm \
    ORT_DISABLE_TELEMETRY=1 MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true
ARG REVISION
LABEL org.opencontainers.image.title="arithmetic-lm" \
    org.opencontainers.image.description="Answers integer arithmetic with a model of an MLflow registry" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.revision="$REVISION"
USER service
VOLUME /var/cache/arithmetic-lm
EXPOSE 8000
# Healthy: a model is loaded. http.client uses no proxy.
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 CMD ["python", "-c", \
    "import os; from http.client import HTTPConnection as C; c = C('127.0.0.1', int(os.environ['PORT']), timeout=2); c.request('GET', '/health'); exit(c.getresponse().status != 200)"]
CMD ["python", "-m", "serving"]
