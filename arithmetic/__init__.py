"""The task and the model; knows no DVC, MLflow or HTTP."""

import os

# onnxruntime reads this once, when it is first imported; without it, it writes below ~/.cache and
# looks up a telemetry host.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
