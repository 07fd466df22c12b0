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
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from arithmetic.errors import UserError
from registry import download
from registry.download import ModelVersionRef
from registry.exceptions import RegistryUnreachableError, VersionNotFoundError
from serving.error_handlers import ModelUnavailableError, describe
from serving.loaded_model import LoadedModel, Source, load_model
from serving.metrics import Metrics
from serving.monitoring import Monitor
from serving.settings import Settings, open_model_cache

log = logging.getLogger(__name__)

MAX_BACKOFF_SECONDS = 300.0
KNOWN_GOOD = 2  # versions kept on disk
ABANDONED_SECONDS = 3600.0  # age of a download whose process was killed


class State(BaseModel):
    """Hold state.json.

    Attributes:
        known_good: versions by the name of their directory in the model cache, the latest last.
        rejected: reasons by digest.
    """

    known_good: dict[str, ModelVersionRef] = {}
    rejected: dict[str, str] = {}


class Failure(NamedTuple):
    """Hold how often a version did not load, why, and when it is tried again (monotonic time)."""

    attempts: int
    retry_at: float
    reason: str


class ModelManager:
    """Hold the model that serves; a background thread, the only writer, replaces it."""

    def __init__(self, settings: Settings, metrics: Metrics, registry: Any = download):
        self.settings, self._metrics, self._registry = settings, metrics, registry
        self._cache = open_model_cache(settings)
        self._state_file = self._cache / "state.json"
        path = settings.mispredictions or self._cache / "mispredictions.jsonl"
        self.monitor = Monitor(metrics, path, settings.check_queue)
        self.model: LoadedModel | None = None  # replaced by one assignment
        self.source: Source | None = None
        self.reason: str | None = None  # of the latest failure
        self.registry_status = "not used" if settings.is_local else "not asked yet"
        self.is_draining = False  # set by the server
        self._previous: LoadedModel | None = None
        self._named: ModelVersionRef | None = None  # by the registry, at the last look
        self._state = self._read_state()
        self._failures: dict[ModelVersionRef, Failure] = {}
        self._stopped = threading.Event()
        self._first_attempt = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model-manager", daemon=True)

    async def start(self, timeout: float) -> None:
        """Start polling; return after the first attempt, or after `timeout` seconds."""
        self.monitor.start()
        self._thread.start()
        await asyncio.to_thread(self._first_attempt.wait, timeout)

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

    def rejected(self) -> dict[str, str]:
        """Return the versions that are not served although they are registered, with reasons."""
        failures = self._failures.copy()
        reasons = {version.version: failure.reason for version, failure in failures.items()}
        named = self._named
        if named is not None and (reason := self._state.rejected.get(named.digest)):
            reasons[named.version] = reason
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
        """Check what is served, look once which version the URI means, and load it if it is new."""
        self._check_accuracy()
        is_final = self.model is not None and self.source != "last_known_good"
        if is_final and not self.settings.follows_alias:
            return
        try:
            version = self._registry.resolve(self.settings.model_uri)
        except VersionNotFoundError as error:  # no version is meant to start here
            self._on_registry("reachable", error)
            return
        except (UserError, OSError) as error:
            self._on_registry("unreachable", error)
        else:
            self._on_registry("reachable")
            self._follow(version)
        if self.model is None:
            self._load_known_good()

    def _on_registry(self, status: str, error: Exception | None = None) -> None:
        """Keep the registry's state and the reason why it names no version."""
        if not self.settings.is_local and not self.registry_status.startswith(status):
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self.registry_status = f"{status} since {now}"
            log.info("the registry is %s", status)
        self._metrics.registry_up.set(status == "reachable")
        if error is not None and (reason := describe(error)) != self.reason:
            self.reason = reason
            log.warning("%s: %s", self.settings.model_uri, reason)

    def _follow(self, version: ModelVersionRef) -> None:
        """Serve the version that the registry names, if it can be loaded."""
        if version != self._named:  # a version that is named again gets another chance
            self._named = version
            self._failures = {v: failure for v, failure in self._failures.items() if v == version}
            for digest in {*self._state.rejected} - {version.digest}:
                del self._state.rejected[digest]
                self._write_state()
        if self.model is not None and self.model.version == version:
            if self.source == "last_known_good":
                self._remember(self.model)
            self.source, self.reason = "registry", None
        elif version.digest in self._state.rejected:
            self.reason = self._state.rejected[version.digest]
        else:
            source: Source = "directory" if self.settings.is_local else "registry"
            self._try_load(version, partial(self._registry.download, version, self._cache), source)

    def _load_known_good(self) -> bool:
        """Serve the latest known good version on disk whose files are intact."""
        return any(
            self._try_load(
                version,
                partial(self._registry.verify, self._cache / name, version.digest),
                "last_known_good",
            )
            for name, version in reversed(self._state.known_good.items())
        )

    # Loading and replacing

    def _try_load(
        self, version: ModelVersionRef, get_directory: Callable[[], Path], source: Source
    ) -> bool:
        """Load and activate a version, unless a failure of it is too recent."""
        failure = self._failures.get(version)
        if failure is not None and time.monotonic() < failure.retry_at:
            return False
        try:
            directory = get_directory()
            model = load_model(directory, version, self.settings, self._metrics, self.monitor)
        except RegistryUnreachableError as error:  # says nothing about the version
            self._on_registry("unreachable", error)
        except (UserError, OSError) as error:
            self._on_failure(version, error)
        except Exception as error:  # whatever foreign files make a library raise
            log.exception("version %s does not load", version.version)
            self._on_failure(version, error)
        else:
            self._failures.pop(version, None)
            self._activate(model, source)
            return True
        return False

    def _on_failure(self, version: ModelVersionRef, error: Exception) -> None:
        reason, previous = describe(error), self._failures.get(version)
        count = previous.attempts + 1 if previous else 1
        seconds = min(self.settings.poll_seconds * 2**count, MAX_BACKOFF_SECONDS)
        self._failures[version] = Failure(count, time.monotonic() + seconds, reason)
        self.reason = reason
        self._metrics.load_failures.labels(version.version).inc()
        text = "version %s is not loaded (attempt %d, next in %.0f s): %s"
        log.error(text, version.version, count, seconds, reason)

    def _activate(self, model: LoadedModel, source: Source) -> None:
        version, replaced = model.version, self.model
        if replaced is not None and replaced.version.digest not in self._state.rejected:
            self._previous = replaced
        if source != "last_known_good":  # else it says why the registry's does not serve
            self.reason = None
        self.source, self.model = source, model
        self._metrics.set_model(version.name, version.version, version.digest)
        if source == "registry":
            self._remember(model)
        # What is loaded stays: collections of the whole heap would make much of the p99.
        gc.collect()
        gc.freeze()
        log.info("serving version %s (%s) from %s", version.version, version.digest[:12], source)

    def _remember(self, model: LoadedModel) -> None:
        """Store the version as the latest known good one, and delete what is no longer needed."""
        name, known = model.directory.name, self._state.known_good
        others = [item for item in known.items() if item[0] != name]
        self._state.known_good = dict([*others, (name, model.version)][-KNOWN_GOOD:])
        self._write_state()
        self._clean_cache()

    def _check_accuracy(self) -> None:
        """Reject the served version if its checked answers are wrong too often."""
        model, settings = self.model, self.settings
        if model is None:
            return
        reason = model.stats.rejection_reason(settings.max_error_rate, settings.min_questions)
        if reason is None:
            return
        if settings.follows_alias:
            self._reject(model, reason)
        elif self.reason != reason:
            self.reason = reason
            log.error("%s; it stays, since MODEL_URI names no alias", reason)

    def _reject(self, model: LoadedModel, reason: str) -> None:
        """Serve the previous version, or the last known good one; nothing if there is neither."""
        digest, known = model.version.digest, self._state.known_good
        log.error("rejected: %s", reason)
        self._metrics.rejected.labels(model.version.version).inc()
        self._state.rejected[digest] = self.reason = reason
        self._state.known_good = {name: v for name, v in known.items() if v.digest != digest}
        self._write_state()
        # It serves until there is another: no request fails meanwhile.
        previous, self._previous = self._previous, None
        if previous is not None and previous.version.digest != digest:
            self._activate(previous, "last_known_good")
        elif not self._load_known_good():
            self.model = self.source = None
            self._metrics.model.clear()
            log.error("no earlier version is known: nothing serves until one is promoted")

    # The state file

    def _read_state(self) -> State:
        try:
            return State.model_validate_json(self._state_file.read_bytes())
        except (OSError, ValidationError) as error:
            if not isinstance(error, FileNotFoundError):
                log.warning("%s is not read: %s", self._state_file, describe(error))
            return State()

    def _write_state(self) -> None:
        """Replace state.json."""
        draft = self._state_file.with_suffix(".tmp")
        try:
            draft.write_text(self._state.model_dump_json(indent=1), encoding="utf-8")
            draft.replace(self._state_file)
        except OSError as error:
            log.error("cannot write %s: %s", self._state_file, error.strerror)

    def _clean_cache(self) -> None:
        """Delete models that are not known good, and downloads that nobody finished."""
        for path in self._cache.iterdir():
            is_recent = time.time() - path.stat().st_mtime < ABANDONED_SECONDS
            is_needed = path.name in self._state.known_good or not path.is_dir()
            if is_needed or (path.name.startswith(".") and is_recent):
                continue
            shutil.rmtree(path, ignore_errors=True)
            path.with_name(f"{path.name}.sig").unlink(missing_ok=True)
