"""Follow the model URI: poll, download, verify, self-test, swap.

A version that fails is retried with exponential back-off, since its files may be repaired. One
whose checked answers are wrong too often is rejected until the alias names another version, and
the previous one serves again. `state.json` in the model cache lists the last known good versions,
from which the service starts without a registry.
"""

import asyncio
import gc
import logging
import shutil
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from arithmetic.errors import UserError
from registry import download
from registry.exceptions import RegistryUnreachableError, VersionNotFoundError
from serving.error_handlers import ModelUnavailableError, describe
from serving.loaded_model import LoadedModel, ModelVersion, Source, load_model
from serving.metrics import Metrics
from serving.monitoring import Monitor, VersionStats
from serving.settings import Settings, open_model_cache

log = logging.getLogger(__name__)

MAX_BACKOFF_SECONDS = 300.0
KNOWN_GOOD = 2  # versions kept on disk
ABANDONED_SECONDS = 3600.0  # age of a download whose process was killed


class Registry(Protocol):
    """Describe what the manager needs of `registry.download`."""

    def resolve(self, model_uri: str) -> Any:
        """Return the version that the URI means: `.name`, `.version`, `.digest`."""

    def download(self, ref: Any, into: Path) -> Path:
        """Return the verified model directory below `into`; a local one stays in its place."""

    def verify(self, directory: Path, digest: str) -> Path:
        """Return the directory, or raise InvalidModelError."""


class State(BaseModel):
    """Hold state.json: known good versions, the latest last, and rejected digests with reasons.

    `directories` names each known good version's directory in the model cache, by digest.
    """

    known_good: list[ModelVersion] = []
    directories: dict[str, str] = {}
    rejected: dict[str, str] = {}


class ModelManager:
    """Hold the model that serves; a background thread replaces it."""

    def __init__(self, settings: Settings, metrics: Metrics, registry: Registry | None = None):
        self.settings, self._metrics = settings, metrics
        self._registry: Registry = registry or download
        self._cache = open_model_cache(settings)
        self._state_file = self._cache / "state.json"
        path = settings.mispredictions or self._cache / "mispredictions.jsonl"
        self.monitor = Monitor(metrics, path, settings.check_queue, self._on_checked)
        self.model: LoadedModel | None = None  # replaced by one assignment
        self.source: Source | None = None
        self.reason: str | None = None  # of the latest failure
        self.is_draining = False  # set by the server
        self._previous: LoadedModel | None = None
        self._named: ModelVersion | None = None  # by the registry, at the last look
        self._state = self._read_state()
        self._failures: dict[ModelVersion, tuple[int, float, str]] = {}  # count, retry at, reason
        self._registry_status, self._registry_since = "not asked yet", _now()
        self._lock = threading.RLock()  # one change of the served model at a time
        self._stopped = threading.Event()
        self._first_attempt = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model-manager", daemon=True)

    async def start(self, timeout: float) -> None:
        """Start polling; return after the first attempt, or after `timeout` seconds."""
        self.monitor.start()
        self._thread.start()
        deadline = time.monotonic() + timeout
        while not self._first_attempt.is_set() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    def stop(self) -> None:
        """Stop polling, without waiting for a registry request, and finish the checks."""
        self._stopped.set()
        self.monitor.stop()

    def get_model(self) -> LoadedModel:
        """Return the model that serves; raise ModelUnavailableError without one."""
        if self.model is None:
            raise ModelUnavailableError(f"no model is loaded: {self.reason or 'still loading'}")
        return self.model

    def unready_reason(self) -> str | None:
        """Return why no requests should be sent here, None if they may."""
        if self.is_draining:
            return "shutting down"
        if self.model is None:
            return self.reason or "loading"
        return "overloaded" if self.model.batcher.is_overloaded else None

    def registry_status(self) -> str:
        """Return the registry's state and since when, for /health."""
        if self.settings.is_local:
            return "not used"
        return f"{self._registry_status} since {self._registry_since}"

    def rejected(self) -> dict[str, str]:
        """Return the versions that are not served although they are registered, with reasons."""
        reasons = {version.version: reason for version, (_, _, reason) in [*self._failures.items()]}
        named = self._named
        if named is not None and named.digest in self._state.rejected:
            reasons[named.version] = self._state.rejected[named.digest]
        return reasons

    # Polling, in the manager's thread

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.poll()
            except Exception as error:  # a bug must not end the polling
                log.exception("polling %s failed", self.settings.model_uri)
                self.reason = f"polling failed: {error!r}"
            self._first_attempt.set()
            self._stopped.wait(self.settings.poll_seconds)

    def poll(self) -> None:
        """Look once which version the URI means, and load it if it is new."""
        settings = self.settings
        is_final = self.model is not None and self.source != "last_known_good"
        if is_final and not settings.follows_alias:
            return
        try:
            ref = self._registry.resolve(settings.model_uri)
        except VersionNotFoundError as error:  # no version is meant to start here
            self._set_registry_status("reachable", _reason(error))
            return
        except (UserError, OSError) as error:
            self._set_registry_status("unreachable", _reason(error))
        else:
            self._set_registry_status("reachable", None)
            self._follow(ref)
        if self.model is None:
            self._load_known_good()

    def _follow(self, ref: Any) -> None:
        """Serve the version that the registry names, if it can be loaded."""
        version = ModelVersion.model_validate(ref)
        self._on_named(version)
        if self.model is not None and self.model.version == version:
            self._set_source("registry")
        elif version.digest in self._state.rejected:
            self.reason = self._state.rejected[version.digest]
        else:
            source: Source = "directory" if self.settings.is_local else "registry"
            if self._try_load(version, partial(self._registry.download, ref, self._cache), source):
                self._clean_cache()

    def _set_registry_status(self, status: str, reason: str | None) -> None:
        if status != self._registry_status:
            self._registry_status, self._registry_since = status, _now()
            level = logging.INFO if status == "reachable" else logging.WARNING
            log.log(level, "the registry is %s%s", status, f": {reason}" if reason else "")
        elif reason is not None and reason != self.reason:
            log.warning("%s: %s", self.settings.model_uri, reason)
        self._metrics.registry_up.set(status == "reachable")
        if reason is not None:
            self.reason = reason

    def _on_named(self, version: ModelVersion) -> None:
        """Forget failures and rejections of versions that the alias no longer names."""
        if version == self._named:
            return
        self._named = version
        self._failures = {v: failure for v, failure in self._failures.items() if v == version}
        with self._lock:
            kept = {d: why for d, why in self._state.rejected.items() if d == version.digest}
            if kept != self._state.rejected:
                self._state.rejected = kept
                self._write_state()

    def _load_known_good(self) -> None:
        """Serve the latest known good version on disk whose files are intact."""
        for version in reversed(self._state.known_good):
            directory = self._cache / self._state.directories[version.digest]
            verify = partial(self._registry.verify, directory, version.digest)
            if self._try_load(version, verify, "last_known_good"):
                return

    # Loading and replacing

    def _try_load(
        self, version: ModelVersion, get_directory: Callable[[], Path], source: Source
    ) -> bool:
        """Load and activate a version, unless a failure of it is too recent."""
        count, retry_at, _ = self._failures.get(version, (0, 0.0, ""))
        if time.monotonic() < retry_at:
            return False
        try:
            directory = get_directory()
            model = load_model(directory, version, self.settings, self._metrics, self.monitor)
        except RegistryUnreachableError as error:  # says nothing about the version
            self._set_registry_status("unreachable", _reason(error))
            return False
        except (UserError, OSError) as error:
            self._on_failure(version, count + 1, _reason(error))
            return False
        except Exception as error:  # whatever foreign files make a library raise
            log.exception("version %s does not load", version.version)
            self._on_failure(version, count + 1, f"version {version.version}: {error!r}")
            return False
        self._failures.pop(version, None)
        self._activate(model, source)
        return True

    def _on_failure(self, version: ModelVersion, count: int, reason: str) -> None:
        seconds = min(self.settings.poll_seconds * 2**count, MAX_BACKOFF_SECONDS)
        self._failures[version] = count, time.monotonic() + seconds, reason
        self._metrics.load_failures.labels(version.version).inc()
        self.reason = reason
        log.error(
            "version %s is not loaded (attempt %d, next in %.0f s): %s",
            version.version,
            count,
            seconds,
            reason,
        )

    def _activate(self, model: LoadedModel, source: Source) -> None:
        version = model.version
        with self._lock:
            if version.digest in self._state.rejected:
                return
            if source != "last_known_good":  # else it says why the registry's does not serve
                self.reason = None
            replaced = self.model
            if replaced is not None and replaced.version.digest not in self._state.rejected:
                self._previous = replaced
            self.monitor.set_reference(model.grammar, model.input_profile)
            self.source, self.model = source, model
            self._metrics.set_model(version.name, version.version, version.digest)
            if source == "registry":
                self._remember(model)
        # What is loaded stays: collections of the whole heap would make much of the p99.
        gc.collect()
        gc.freeze()
        log.info("serving version %s (%s) from %s", version.version, version.digest[:12], source)

    def _set_source(self, source: Source) -> None:
        """Note that the registry names what serves already."""
        if self.source == "last_known_good" and self.model is not None:
            with self._lock:
                self._remember(self.model)
        self.source, self.reason = source, None

    def _remember(self, model: LoadedModel) -> None:
        """Store the version as the latest known good one."""
        self._state.directories[model.version.digest] = model.directory.name
        others = [v for v in self._state.known_good if v.digest != model.version.digest]
        self._state.known_good = [*others, model.version][-KNOWN_GOOD:]
        self._write_state()

    # Rejecting, in the monitor's thread

    def _on_checked(self, stats: VersionStats) -> None:
        """Reject the served version if its checked answers are wrong too often."""
        settings = self.settings
        reason = stats.rejection_reason(settings.max_error_rate, settings.min_questions)
        if reason is None:
            return
        with self._lock:
            model = self.model
            if model is None or model.stats is not stats:
                return
            if settings.follows_alias:
                self._reject(model, reason)
            elif self.reason != reason:
                self.reason = reason
                log.error("%s; it stays, since MODEL_URI names no alias", reason)

    def _reject(self, model: LoadedModel, reason: str) -> None:
        version = model.version
        log.error("rejected: %s", reason)
        self._metrics.rejected.labels(version.version).inc()
        self._state.rejected[version.digest] = reason
        self._state.known_good = [v for v in self._state.known_good if v.digest != version.digest]
        self._write_state()
        self.reason = reason
        previous, self._previous = self._previous, None
        # It serves until there is another: no request fails meanwhile.
        if previous is not None and previous.version.digest != version.digest:
            self._activate(previous, "last_known_good")
        else:
            self._load_known_good()
        if self.model is model:
            self.model = self.source = None
            self._metrics.clear_model()
            log.error("no earlier version is known: nothing serves until one is promoted")

    # The state file

    def _read_state(self) -> State:
        try:
            return State.model_validate_json(self._state_file.read_bytes())
        except FileNotFoundError:
            return State()
        except (OSError, ValidationError) as error:
            log.warning("%s is not read: %s", self._state_file, _reason(error))
            return State()

    def _write_state(self) -> None:
        """Replace state.json."""
        known = {version.digest for version in self._state.known_good}
        directories = self._state.directories
        self._state.directories = {d: name for d, name in directories.items() if d in known}
        draft = self._state_file.with_suffix(".tmp")
        try:
            draft.write_text(self._state.model_dump_json(indent=1), encoding="utf-8")
            draft.replace(self._state_file)
        except OSError as error:
            log.error("cannot write %s: %s", self._state_file, error.strerror)

    def _clean_cache(self) -> None:
        """Delete models that are not known good, and downloads that nobody finished."""
        kept = set(self._state.directories.values())
        for path in self._cache.iterdir():
            is_recent = time.time() - path.stat().st_mtime < ABANDONED_SECONDS
            if path.name in kept or not path.is_dir() or (path.name.startswith(".") and is_recent):
                continue
            shutil.rmtree(path, ignore_errors=True)
            path.with_name(f"{path.name}.sig").unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    if isinstance(error, UserError):
        return describe(error)
    return " ".join(str(error).split())[:300]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
