"""The model that is being served, and the attempts to get one."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from arithmetic.engine import Engine
from arithmetic.errors import Problem
from arithmetic.grammar import Grammar
from registry import signature
from registry.pull import Pulled
from serving.batching import Batcher
from serving.settings import Settings

log = logging.getLogger(__name__)

# Model URI, tracking URI and a folder to a verified version in that folder.
Puller = Callable[[str, str, Path], Pulled]


@dataclass(frozen=True)
class Served:
    """A loaded version."""

    name: str
    version: str
    bundle_sha256: str
    grammar: Grammar
    batcher: Batcher


class Live:
    """Holds what is served; `reason` says why it is nothing."""

    def __init__(self, settings: Settings, pull: Puller):
        self.settings = settings
        self._pull = pull
        self.served: Served | None = None
        self.reason: str | None = None
        self.tried = asyncio.Event()  # set once a first attempt has succeeded or failed

    async def load(self) -> None:
        """Try until a version is loaded. The service listens meanwhile, and says 503."""
        while self.served is None:
            try:
                self.served = await asyncio.to_thread(self._load_once)
            except (Problem, OSError) as problem:  # a full disk may be mended
                if str(problem) != self.reason:
                    log.error("no model: %s", problem)
                self.reason = str(problem)
                self.tried.set()
                await asyncio.sleep(self.settings.pull_retry_seconds)
        self.reason = None
        self.tried.set()
        log.info(
            "serving version %s of %s (bundle %s)",
            self.served.version,
            self.served.name,
            self.served.bundle_sha256[:12],
        )

    def _load_once(self) -> Served:
        settings = self.settings
        pulled = self._pull(settings.model_uri, settings.mlflow_tracking_uri, settings.model_cache)
        signature.check(pulled.bundle, settings.trusted_key)
        engine = Engine(pulled.bundle)
        return Served(
            pulled.name,
            pulled.version,
            pulled.bundle_sha256,
            engine.grammar,
            Batcher(engine.answer, settings.largest_batch),
        )
