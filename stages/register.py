"""Register the finished pipeline: one MLflow run, and one version of its model.

    python -m stages.register        the last stage of `dvc repro`

It runs at every `dvc repro` (`always_changed`), so `dvc repro` again is the retry after a failure.
"""

from pathlib import Path

from arithmetic.errors import cli_errors
from registry.record import record


def main() -> None:
    """Register the pipeline in the working directory."""
    with cli_errors():
        print(record(Path.cwd()))


if __name__ == "__main__":
    main()
