"""Answer equations as an ordinary MLflow model: a column `equation` in, a column `answer` out.

MLflow keeps this file and the package `arithmetic` in each version and executes them when the
version is loaded ("models from code"), so nothing is pickled.

Two versions loaded in one process share the package of the first (a limit of MLflow: it puts each
version's code on `sys.path`); a model directory of another format is then refused.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from arithmetic.inference import OnnxModel


class ArithmeticModel(PythonModel):
    """Answer by the exported decoders."""

    def load_context(self, context: Any) -> None:
        """Load the version's model directory; raise InvalidModelError."""
        self.model = OnnxModel(Path(context.artifacts["model"]))

    # MLflow takes a type hint of `model_input` for a schema, and warns of any but this one.
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Map rows with `equation` to rows with `answer`; raise InvalidEquationError."""
        equations = [self.model.grammar.parse(text) for text in model_input["equation"]]
        answers = self.model.answer(equations) if equations else []
        return pd.DataFrame({"answer": pd.Series([a.text for a in answers], dtype="object")})


set_model(ArithmeticModel())
