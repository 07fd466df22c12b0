"""Open the MLflow store: the server that MLFLOW_TRACKING_URI names, or SQLite in the repository.

The default is `mlflow.db` with `mlartifacts/` beside it, at the root of the repository that this
file is in. A relative SQLite address means that root too, whatever the working directory, and an
experiment's copy below `.dvc/tmp/exps` uses the store of its repository.

The service imports this with mlflow-skinny: SQLite and filelock are imported where they are used.
"""

import getpass
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from registry import EXPERIMENT
from registry.exceptions import RegistryError, RegistryUnreachableError

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow.db"
_SQLITE = "sqlite:///"
_log = logging.getLogger(__name__)

# MLflow's own defaults wait minutes for a server that is down (7 retries, 120 s each).
_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "GIT_PYTHON_REFRESH": "quiet",
}
_LOOPBACK = "localhost,127.0.0.1,::1"
_UNAUTHORIZED = ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED")
# Columns of MLflow's database that hold absolute artifact locations.
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


def repository_root() -> Path:
    """Return the repository of this file; for an experiment's copy the one around it."""
    root = Path(__file__).resolve().parents[1]
    for parent in root.parents:
        if parent.parts[-3:] == (".dvc", "tmp", "exps"):
            return parent.parents[2]
    return root


def tracking_uri() -> str:
    """Return the address of the store, absolute if it is SQLite."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    if not uri.startswith(_SQLITE):
        return uri
    path, question_mark, options = uri.removeprefix(_SQLITE).partition("?")
    return f"{_SQLITE}{(repository_root() / path).resolve()}{question_mark}{options}"


def sqlite_path() -> Path | None:
    """Return the database file of a SQLite store, None for a server."""
    uri = tracking_uri()
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]) if uri.startswith(_SQLITE) else None


def artifact_location() -> str | None:
    """Return where a new experiment keeps its files; None lets the server choose."""
    database = sqlite_path()
    return None if database is None else (database.parent / "mlartifacts").as_uri()


def bypass_proxy_for_loopback() -> None:
    """Let no request to this machine go through a proxy of the environment."""
    for name in ("no_proxy", "NO_PROXY"):
        present = os.environ.get(name, "")
        if present != "*" and _LOOPBACK not in present:
            os.environ[name] = f"{present},{_LOOPBACK}".lstrip(",")


@contextmanager
def registry_errors() -> Iterator[None]:
    """Translate the exceptions of MLflow, requests and the database; also works as a decorator."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    bypass_proxy_for_loopback()
    import requests
    from mlflow.exceptions import MlflowException

    for logger in ("mlflow", "alembic"):  # importing MLflow sets levels of its own
        logging.getLogger(logger).setLevel(logging.ERROR)
    try:
        yield
    except (
        MlflowException,
        requests.RequestException,
        sqlite3.Error,
        ModuleNotFoundError,
    ) as error:
        raise _translate(error) from error


@registry_errors()
def open_client() -> "MlflowClient":
    """Return a client of the store; make the SQLite database if there is none yet.

    Raises:
        RegistryUnreachableError: the database does not open.
        RegistryError: the address names no store that can be used here.
    """
    from mlflow import MlflowClient

    uri, database = tracking_uri(), sqlite_path()
    if database is not None:
        _create_database(database)
        _relocate(database)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def public(uri: str) -> str:
    """Return an address without its user and password."""
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _translate(error: Exception) -> RegistryError:
    import requests
    from mlflow.exceptions import MlflowException

    place = public(tracking_uri())
    if isinstance(error, ModuleNotFoundError):  # mlflow-skinny comes without SQLAlchemy
        return RegistryError(
            f"the MLflow store {place} needs a package that is not installed: {error}",
            "install it, or set MLFLOW_TRACKING_URI to the http:// address of a server",
        )
    causes: list[BaseException] = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, requests.RequestException) and cause.response is None:
            # The last cause is like "Connection refused".
            return RegistryUnreachableError(
                f"no answer from the MLflow server {place}{_proxy()}: {first_line(causes[-1])}",
                "start it, or unset MLFLOW_TRACKING_URI to use the store in the repository",
            )
        if isinstance(cause, sqlite3.Error):
            return RegistryUnreachableError(
                f"cannot use the MLflow store {place}: {cause}",
                "wait if another process holds it; if it is damaged, move the file away and run "
                "`dvc repro`",
            )
    hint = "look at the server's log, and check MLFLOW_TRACKING_URI"
    if isinstance(error, MlflowException) and error.error_code in _UNAUTHORIZED:
        hint = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or the server's hosts"
    return RegistryError(f"the MLflow store {place} answered: {first_line(error)}", hint)


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, or its type."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def user_name() -> str:
    """Return the user's name; a container's user may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _proxy() -> str:
    from requests.utils import get_environ_proxies, select_proxy

    proxy = select_proxy(tracking_uri(), get_environ_proxies(tracking_uri()))
    return f" through the proxy {public(proxy)}" if proxy else ""


def _create_database(database: Path) -> None:
    """Make a SQLite store, all of it or nothing.

    MLflow creates the tables in many steps; killed between two of them it leaves a file that never
    opens again. So a new one is made beside its place and moved there when it is complete.
    """
    if database.exists():
        return
    from filelock import FileLock
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock"):
        if database.exists():
            return
        draft = database.with_name(f"{database.name}.draft")
        draft.unlink(missing_ok=True)  # of a killed process: whoever makes one holds the lock
        store = SqlAlchemyStore(f"{_SQLITE}{draft}", artifact_location())
        store.engine.dispose()
        draft.rename(database)


def _relocate(database: Path) -> None:
    """Correct the absolute artifact locations of a store that was moved or copied with its files.

    Only a location that was made as `artifact_location` makes it is corrected.
    """
    here = (database.parent / "mlartifacts").as_uri()
    with closing(sqlite3.connect(database)) as connection, connection:
        query = "SELECT artifact_location FROM experiments WHERE name = ?"
        row = connection.execute(query, (EXPERIMENT,)).fetchone()
        old = row[0] if row else here
        if old == here or not (old.startswith("file:") and old.endswith("/mlartifacts")):
            return
        for table, column in _LOCATIONS:
            statement = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
            connection.execute(statement, (old, here))
    _log.warning("the MLflow store was moved: its files are looked for in %s now", here)
