"""A bundle as an ordinary MLflow model: a column `equation` in, a column `answer` out.

MLflow stores this file with each version and executes it when the version is loaded ("models from
code"), so nothing is pickled. It may import only what the version carries: `arithmetic.engine` and
what that imports.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from arithmetic.engine import Engine


class ArithmeticModel(PythonModel):
    """Answers by the serving graph."""

    def load_context(self, context: Any) -> None:
        """Load the bundle that the version carries; raises BrokenBundle."""
        self.engine = Engine(Path(context.artifacts["bundle"]))

    # MLflow reads the type hint of `model_input` as a schema, and warns of any but this one.
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Rows with a column `equation` to rows with `answer`; raises InvalidEquation."""
        equations = [self.engine.grammar.parse(text) for text in model_input["equation"]]
        answers = self.engine.answer(equations) if equations else []
        return pd.DataFrame({"answer": pd.Series([a.text for a in answers], dtype="object")})


set_model(ArithmeticModel())
