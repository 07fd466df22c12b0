"""MLflow: runs, registered versions, promotion and download.

`record` logs the pipeline's files as a run and registers the model, `promotion` moves the alias
`Production`, `download` brings a version to a service, `lineage` checks where a version comes from.
"""

import os

# MLflow reads these when it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

MODEL_NAME = "arithmetic-lm"
EXPERIMENT = "arithmetic-lm"
PRODUCTION, PREVIOUS = "Production", "Previous"  # aliases

MODEL_PATH = "artifacts/model"  # of the model directory within a version
SIGNATURE_PATH = "artifacts/model.sig"  # only in a version registered with a SIGNING_KEY
DIGEST_TAG = "model_digest"  # of a version: `arithmetic.artifacts.digest` of its model directory
RUN_TAG = "run_digest"  # of a run: the first digits of the digest of its dvc.lock
REPORT_TAG = "evaluation_run_id"  # of a version: the run with its latest evaluation
REPORT_PATH = "reports/evaluation.json"  # within that run, and in the workspace
