"""Define the task and the model, independent of DVC, MLflow and HTTP."""

import os

# Read when onnxruntime is first imported; unset, it writes to ~/.cache and looks up a host.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
