"""Where MLflow keeps things: `mlflow.db` and `mlartifacts/` at the repository's root, or a server.

    python -m registry.store        prints the tracking URI

`MLFLOW_TRACKING_URI` switches to a server. Nothing happens at import: MLflow is loaded and
quietened by `opened`, which every entry point uses.
"""

import errno
import fcntl
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import RegistryProblem, RegistryUnreachable, shown

if TYPE_CHECKING:
    from mlflow import MlflowClient

# DVC runs queued experiments in copies of the tree below this folder of the main checkout.
_EXPERIMENT_COPIES = (".dvc", "tmp", "exps")

# MLflow reads these when it is imported. With its own values (7 retries, 120 s) a server that died
# is noticed after minutes; the others keep its messages out of a pipeline's output.
_MLFLOW_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "GIT_PYTHON_REFRESH": "quiet",
}
# Seconds that a server has for its first answer: a host that is off answers nothing at all, and
# each of MLflow's requests would wait for it three times.
FIRST_ANSWER_SECONDS = 5
# What an MLflow or SQL driver error looks like when the store is not there.
_LOST = (
    "Max retries exceeded",
    "Connection refused",
    "Connection aborted",
    "Connection reset",
    "OperationalError",
    "timed out",
    "failed with error code 5",
    "failed with exception",
)


def root(start: Path | None = None) -> Path:
    """The repository's root: the nearest folder upwards with a pipeline, from `start` or the cwd.

    From a copy that DVC made for an experiment it is the main checkout's, so that every experiment
    is recorded in one store. Outside of any repository it is the one this file is in.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if any((folder / name).is_file() for name in ("dvc.yaml", "dvc.lock")):
            # A second configuration in a folder of its own is recorded beside the first.
            outer = folder.parent
            return _main_checkout(outer if (outer / "dvc.yaml").is_file() else folder)
    return _main_checkout(Path(__file__).resolve().parents[1])


def default_uri(start: Path | None = None) -> str:
    """The SQLite store at the root."""
    return f"sqlite:///{root(start) / 'mlflow.db'}"


def tracking_uri(start: Path | None = None) -> str:
    """`MLFLOW_TRACKING_URI`, or the SQLite store at the root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or default_uri(start)


def database_to_serve(start: Path | None = None) -> str | None:
    """The database that a server must be started over, for a service; None if one is named.

    Raises:
        RegistryProblem: there is nothing in it yet.
    """
    uri = tracking_uri(start)
    if is_server(uri):
        return None
    path = sqlite_file(uri)
    if path is None:
        return uri
    if not path.exists():
        raise RegistryProblem(f"there is no {path} yet, so nothing to serve; type `make run`")
    return f"sqlite:///{path}"


def is_server(uri: str) -> bool:
    """Whether a tracking URI is the address of a server, and not a database's."""
    return uri.startswith(("http://", "https://"))


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite store, options (`?timeout=10`) left out; None for any other store."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]).resolve()


def artifact_location(start: Path | None = None) -> str | None:
    """Where a new experiment's files go: beside the SQLite file; None leaves it to the server."""
    file = sqlite_file(tracking_uri(start))
    return None if file is None else (file.parent / "mlartifacts").as_uri()


@contextmanager
def opened(start: Path | None = None) -> Iterator["MlflowClient"]:
    """A client of the store, MLflow being loaded and quiet; its failures become one sentence each.

    Raises:
        RegistryUnreachable: no answer, or the store does not open; a server that is not there is
            noticed within FIRST_ANSWER_SECONDS.
        RegistryProblem: the store answered with an error, for example a missing permission.
    """
    for name, value in _MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    for name in ("mlflow", "alembic"):  # importing MLflow sets levels of its own
        logging.getLogger(name).setLevel(logging.ERROR)
    uri = tracking_uri(start)
    place = shown(uri)
    given = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)  # also sets the variable, which is put back below
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = sqlite_file(uri)
            if file is not None:
                _create(file)
            elif is_server(uri):
                _first_answer(uri)
            yield _client(place)
    except (MlflowException, OSError, sqlalchemy.exc.DatabaseError) as error:
        full = disk_problem(error)
        if full is not None:
            raise RegistryProblem(
                f"the MLflow store {place} cannot be written ({full}); make room and repeat"
            ) from error
        if "database is locked" in str(error):
            raise RegistryUnreachable(
                f"{place} is locked by another process; wait for it or end it, and repeat"
            ) from error
        broken = isinstance(error, sqlalchemy.exc.DatabaseError)
        if sqlite_file(uri) is not None and (broken or is_lost(error)):
            reason = getattr(error, "orig", None) or str(error).splitlines()[0]
            raise RegistryUnreachable(
                f"{place} does not open as an MLflow store ({reason}); move the file away and "
                "run `dvc repro`, which records anew, or bring a copy of it back"
            ) from error
        if is_lost(error):
            raise RegistryUnreachable(
                f"no answer from the MLflow store {place}; start it, or unset MLFLOW_TRACKING_URI "
                "to use the store at the repository's root"
            ) from error
        if broken:
            raise RegistryUnreachable(
                f"{place} does not open as an MLflow store ({getattr(error, 'orig', error)}); mend "
                "the database, or name another store by MLFLOW_TRACKING_URI"
            ) from error
        if not isinstance(error, MlflowException):
            raise
        message = str(error).strip().splitlines()[0][:200]
        raise RegistryProblem(f"the MLflow store {place} answered: {message}") from error
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # its own way to forget one
        # MLflow itself leaves the variable where one call was within another.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if given is not None:
            os.environ["MLFLOW_TRACKING_URI"] = given


def _client(place: str) -> "MlflowClient":
    import mlflow
    import sqlalchemy.exc

    try:
        return mlflow.MlflowClient()
    except (ImportError, sqlalchemy.exc.ArgumentError) as error:
        raise RegistryProblem(
            f"MLFLOW_TRACKING_URI names {place}, which cannot be used here ({error}); correct it, "
            "install what it needs, or name an MLflow server by its http:// address"
        ) from error


def _create(database: Path) -> None:
    """Make a SQLite store, all of it or nothing.

    MLflow creates a new store's tables in many steps. Killed between two of them it leaves a
    file that never opens again (found by `benchmarks.kills`), so a new one is made beside its place
    and moved there when it is complete.
    """
    import mlflow

    if database.exists():
        return
    try:
        lock = database.with_name(f"{database.name}.lock").open("w")
    except OSError as error:
        raise RegistryUnreachable(
            f"no MLflow store can be made at {database} ({error.strerror}); mend the folder, or "
            "name another store by MLFLOW_TRACKING_URI"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go when the file is closed, or the process dies
        if database.exists():
            return
        for draft in database.parent.glob(f"{database.name}.*.draft*"):
            draft.unlink()  # a killed process left it: whoever makes one holds the lock
        draft = database.with_name(f"{database.name}.{os.getpid()}.draft")
        mlflow.MlflowClient(f"sqlite:///{draft}").search_experiments(max_results=1)
        os.replace(draft, database)


def disk_problem(error: BaseException) -> str | None:
    """`No space left on device` and the like, if that is what an error comes from."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return os.strerror(seen.errno)
        if any(sign in str(seen) for sign in ("disk is full", "disk I/O error", "No space left")):
            return os.strerror(errno.ENOSPC)
        seen = seen.__cause__ or seen.__context__
    return None


def _first_answer(uri: str) -> None:
    """Ask the server once, without retries; raises requests.ConnectionError if it is not there."""
    import requests
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    response = http_request(
        get_default_host_creds(uri),
        "/health",
        "GET",
        max_retries=0,
        timeout=FIRST_ANSWER_SECONDS,
        raise_on_status=False,
    )
    # Any answer but a gateway's "nobody is there behind me" comes from a server.
    if response.status_code in (502, 503, 504):
        raise requests.ConnectionError(f"status {response.status_code}")


def is_lost(error: BaseException) -> bool:
    """Whether an error of MLflow, requests or SQLAlchemy means that the store is not there."""
    import requests
    import sqlalchemy.exc

    if isinstance(error, requests.RequestException | sqlalchemy.exc.OperationalError):
        return True
    return isinstance(error, ConnectionError) or any(sign in str(error) for sign in _LOST)


def _main_checkout(folder: Path) -> Path:
    parts = folder.parts
    for index in range(len(parts) - len(_EXPERIMENT_COPIES)):
        if parts[index : index + len(_EXPERIMENT_COPIES)] == _EXPERIMENT_COPIES:
            return Path(*parts[:index])
    return folder


if __name__ == "__main__":
    print(tracking_uri())
