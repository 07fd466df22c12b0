"""Following a model URI: notice, download, verify, self-test, hand over.

A thread of its own asks the registry every second or so. Whatever the registry does (no answer, a
slow one, a damaged version), only this thread waits for it, and what is served stays. The thread is
a daemon: a download that hangs does not hold up the end of the process.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import httpx

from arithmetic.config import load_config
from arithmetic.errors import BrokenBundle, Problem, RegistryProblem
from registry import inputs
from registry.errors import RegistryUnreachable, VersionNotFound
from registry.pull import Pulled, Resolved, artifact, connect, fetch, find
from serving.remembered import Memory
from serving.withdrawals import Identity, Withdrawals

log = logging.getLogger(__name__)


class Registry(Protocol):
    """Where versions come from; raises as `registry.pull.pull` does."""

    def resolve(self, model_uri: str) -> Resolved: ...

    def fetch(self, found: Resolved, into: Path) -> Pulled: ...


class Server:
    """An MLflow server asked over one connection."""

    def __init__(self, tracking_uri: str, timeout: float):
        self._tracking_uri, self._timeout = tracking_uri, timeout
        self._client: httpx.Client | None = None

    def resolve(self, model_uri: str) -> Resolved:
        return find(self._connected(), model_uri)

    def fetch(self, found: Resolved, into: Path) -> Pulled:
        pulled = fetch(self._connected(), found, into)
        try:
            self._fetch_inputs(found, pulled.bundle)
        except (RegistryProblem, OSError) as problem:  # it answers as well without
            log.warning(
                "no profile of the training inputs of version %s: %s", found.version, problem
            )
        return pulled

    def _fetch_inputs(self, found: Resolved, bundle: Path) -> None:
        target = inputs.beside(bundle)
        if found.run_id and not target.exists():
            content = artifact(self._connected(), found.run_id, inputs.ARTIFACT)
            if content is not None:
                inputs.write(target, inputs.read(content, load_config(bundle).grammar))

    def _connected(self) -> httpx.Client:
        if self._client is None:
            self._client = connect(self._tracking_uri, timeout=self._timeout)
        return self._client


class Watch:
    """Follows one model URI. A numbered one is loaded once and never changes.

    Args:
        model_uri: `models:/NAME@ALIAS` or `models:/NAME/3`.
        registry: what to ask.
        into: the folder of the bundles.
        take: loads and tests a version and returns what puts it into service; raises Problem or
            OSError and then leaves what is served as it is.
        let_go: the alias is gone: told so, if given; otherwise what is served stays.
        memory: where versions that passed are remembered; None remembers nothing.
        withdrawals: what this process and others of the service have taken out of service.
        on_withdrawal: told of one that another process noted, after it is out of service here;
            and whether an earlier version could take its place.
        on_named: told, at every look, of a withdrawn version that the registry still names.
        on_refusal: told of each version that does not pass.
        start_from_disk: whether a remembered version may serve when the registry gives none.
        fall_back: whether one may when the version in service is withdrawn.
        seconds: between questions.
        retry_seconds: the same, while nothing is served.
        emptied: told when a version was taken out of service and nothing took its place, before
            anything else can be put there.
    """

    def __init__(
        self,
        model_uri: str,
        registry: Registry,
        into: Path,
        take: Callable[[Pulled], Callable[[], None]],
        memory: Memory | None,
        withdrawals: Withdrawals,
        on_withdrawal: Callable[[Identity, str, bool], None],
        on_named: Callable[[Identity, str], None],
        seconds: float,
        retry_seconds: float,
        emptied: Callable[[], None],
        let_go: Callable[[], None] | None = None,
        start_from_disk: bool = True,
        fall_back: bool = True,
        on_refusal: Callable[[str], None] | None = None,
    ):
        self.model_uri = model_uri
        self.moves = "@" in model_uri
        self._registry, self._into, self._take = registry, into, take
        self._emptied, self._let_go = emptied, let_go
        self._on_refusal = on_refusal
        self._memory, self._start_from_disk, self._falls_back = memory, start_from_disk, fall_back
        self._withdrawals = withdrawals
        self._on_withdrawal, self._on_named = on_withdrawal, on_named
        self._seconds, self._retry_seconds = seconds, retry_seconds
        self._stopped = threading.Event()
        self._lock = threading.Lock()  # one change of what is served at a time
        self._asked_at: float | None = None  # monotonic; while a question is open
        self._state, self._since = "not asked yet", _now()
        self._took = 0.0
        self.tried = threading.Event()  # a first attempt has succeeded or failed
        self.serving: Identity | None = None
        self.source: str | None = None  # "registry" or "disk"
        self.named: Identity | None = None  # what the URI meant when it was last asked
        self._pulled: Pulled | None = None  # what is served
        self._complaint: tuple[Identity, str] | None = None  # the last one that was logged
        self.refused: dict[Identity, str] = {}  # what did not pass
        self.reason: str | None = None  # of the last attempt that failed, None after a good one
        self._thread = threading.Thread(target=self._run, name=f"watch {model_uri}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask no more. A question that is open is not waited for."""
        self._stopped.set()

    def registry_state(self) -> str:
        """`reachable since …`, `slow: …` or `unreachable since …`, as /health shows it."""
        asked_at = self._asked_at
        if asked_at is not None and (waiting := time.monotonic() - asked_at) > _SLOW_SECONDS:
            return f"slow: no answer for {waiting:.0f} s; before that {self._state}"
        if self._took > _SLOW_SECONDS and self._state == "reachable":
            return f"slow: its last answer took {self._took:.1f} s"
        return f"{self._state} since {self._since}"

    def refusals(self) -> dict[str, str]:
        """Versions that are not loaded until the alias has moved, and why."""
        every = {**self.refused, **self._withdrawals.read()}
        return {version: why for (version, _), why in every.items()}

    def withdraw(self, served: Identity, reason: str) -> tuple[bool, bool]:
        """Take a version out of service, in every worker, until the alias has named another one.

        Returns whether this is the first worker to do so, and whether an earlier verified version
        could take its place.
        """
        with self._lock:
            first = True
            # Before anything else, so that a kill now does not bring it back. Once the alias has
            # moved on, there is nothing to refuse.
            if self.named in (None, served):
                first = self._withdrawals.add(served, reason)
            return first, self._out(served, reason)

    def _out(self, one: Identity, reason: str) -> bool:
        """Serve something else, if `one` is what is served. Under the lock."""
        if self._memory is not None:
            self._memory.forget(one)
        if self.serving != one:
            return True
        self.reason = reason
        self.serving = self.source = None
        if self._falls_back and self._from_disk():
            return True
        # The reason before the fact: /health must not show that it is gone without saying why.
        self._emptied()
        return False

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.look()
            except Exception as error:  # a bug here must not end the following
                log.exception("a bug while following %s", self.model_uri)
                self.reason = f"a bug while following {self.model_uri}: {error!r}"
            self.tried.set()
            self._stopped.wait(self._seconds if self.serving else self._retry_seconds)

    def look(self) -> None:
        """Ask once, and take what is new."""
        if self.serving is not None and not self.moves and self.source == "registry":
            self._hear()
            return
        found = self._ask()
        if found is None:
            self._hear()
            if self.named is not None or self._state != "reachable":
                self._start()  # a registry that answers and names no version is believed
            return
        named = (found.version, found.bundle_sha256)
        if named != self.named:
            # The alias has moved, so what was refused before may be tried when it comes back.
            self.refused = {one: why for one, why in self.refused.items() if one == named}
            self._withdrawals.keep_only(named)
            self.named = named
        self._hear()
        refused = self._withdrawals.read().get(named) or self.refused.get(named)
        if named == self.serving:
            if self.source != "registry":  # the alias has come back to it
                self._remember()
            self.source, self.reason = "registry", None
        elif refused is None:
            self._replace(found, named)
        else:
            self.reason = refused
        self._start()
        withdrawn = self._withdrawals.read().get(named)
        if withdrawn is not None:
            self._on_named(named, withdrawn)

    def _hear(self) -> None:
        """Follow what another process has withdrawn."""
        with self._lock:
            one = self.serving
            reason = None if one is None else self._withdrawals.read().get(one)
            if one is None or reason is None:
                return
            log.warning("withdrawn by another process: %s", reason)
            replaced = self._out(one, reason)
        self._on_withdrawal(one, reason, replaced)

    def _start(self) -> None:
        """With nothing in service, take what is on the disk, if that is allowed."""
        if self._start_from_disk:
            with self._lock:
                if self.serving is None:
                    self._from_disk()

    def _ask(self) -> Resolved | None:
        """What the URI means now; None, with the reason noted, if the registry does not say."""
        started = self._asked_at = time.monotonic()
        try:
            found = self._registry.resolve(self.model_uri)
        except VersionNotFound as problem:
            self._note("reachable", str(problem))
            self.named = None
            if self._let_go is not None:
                self._let_go()
                self.serving = None
            return None
        except (Problem, OSError) as problem:
            self._note("unreachable", str(problem))
            return None
        finally:
            self._asked_at, self._took = None, time.monotonic() - started
        self._note("reachable", self.reason)
        return found

    def _replace(self, found: Resolved, named: Identity) -> None:
        try:
            # Not under the lock: a slow registry must not hold up a withdrawal.
            pulled = self._registry.fetch(found, self._into)
            with self._lock:
                self._put(pulled, "registry", self._take(pulled))
        except RegistryUnreachable as problem:
            self._note("unreachable", str(problem))
        except BrokenBundle as problem:
            self._refuse(named, str(problem))
        except (Problem, OSError) as problem:  # a full disk may be mended
            if self._is_new(named, str(problem)):
                log.error("version %s is not loaded: %s", found.version, problem)
            self.reason = str(problem)
        except Exception as error:  # whatever foreign files make our code raise
            log.debug("version %s", found.version, exc_info=error)
            self._refuse(named, f"version {found.version} does not load: {error!r}")

    def _refuse(self, named: Identity, reason: str) -> None:
        if self._is_new(named, reason):
            log.error("version %s is refused: %s", named[0], reason)
            if self._on_refusal is not None:
                self._on_refusal(named[0])
        self.reason = reason
        if self.serving is not None:  # with nothing to lose, it is tried again
            self.refused[named] = reason

    def _is_new(self, named: Identity, complaint: str) -> bool:
        """Whether it is not what was said last: the same words at every look help nobody."""
        before, self._complaint = self._complaint, (named, complaint)
        return before != self._complaint

    def _from_disk(self) -> bool:
        """Serve the latest version that passed here before, if there is one."""
        if self._memory is None:
            return False
        for pulled in self._memory.latest({*self.refused, *self._withdrawals.read()}):
            try:
                put = self._take(pulled)
            except (Problem, OSError) as problem:
                log.error("version %s on this disk is not loaded: %s", pulled.version, problem)
                continue
            except Exception:  # whatever its files make our code raise, an older one may do
                log.exception("version %s on this disk is not loaded", pulled.version)
                continue
            self._put(pulled, "disk", put)
            return True
        return False

    def _put(self, pulled: Pulled, source: str, put: Callable[[], None]) -> None:
        # What is said of a version before the version itself: /health must not show it with the
        # complaint about the one before.
        self.serving, self.source = (pulled.version, pulled.bundle_sha256), source
        self._pulled, self._complaint = pulled, None
        if source == "registry":  # from the disk, the reason says why it is not the registry's
            self.reason = None
        put()
        log.info(
            "%s is version %s (bundle %s) from %s",
            self.model_uri,
            pulled.version,
            pulled.bundle_sha256[:12],
            "the registry" if source == "registry" else "this disk",
        )
        if source == "registry":
            self._remember()

    def _remember(self) -> None:
        """What is served, as the latest that passed."""
        if self._memory is None or self._pulled is None:
            return
        try:
            self._memory.remember(self._pulled)
        except OSError as error:
            version = self._pulled.version
            log.error("version %s is not remembered for a restart: %s", version, error)

    def _note(self, state: str, reason: str | None) -> None:
        """Note how the registry is; said in the log when it changes."""
        if state != self._state:
            self._since = _now()
            say = log.warning if state == "unreachable" else log.info
            say("the registry is %s%s", state, f": {reason}" if reason else "")
        elif reason and reason != self.reason:
            log.warning("%s: %s", self.model_uri, reason)
        self._state, self.reason = state, reason


_SLOW_SECONDS = 2.0


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
