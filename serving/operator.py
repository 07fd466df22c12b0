"""The operator's hand of the service: moves the alias back, if it was given the credentials."""

import logging
import socket
import threading
import time

from arithmetic.errors import Problem
from registry.operator import roll_back
from registry.pull import connect
from serving.settings import Settings
from serving.workers import is_first

log = logging.getLogger(__name__)

# Between two attempts for one version: the registry may have been down.
RETRY_SECONDS = 5.0


class Operator:
    """OPERATOR_TOKEN, or OPERATOR_USERNAME with OPERATOR_PASSWORD; without them it does nothing.

    What the service itself reads with (MLFLOW_TRACKING_…) need not be allowed to write.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._token = settings.operator_token.get_secret_value()
        self._password = settings.operator_password.get_secret_value()
        self._lock = threading.Lock()
        self._at_work = False
        self._last: tuple[str, float] | None = None  # version, and when its rollback was tried

    @property
    def configured(self) -> bool:
        return bool(self._token or self._settings.operator_username)

    def roll_back(self, withdrawn: str, to: str | None, reason: str) -> None:
        """Begin to roll the alias back, in a thread: a slow registry holds up no check.

        Called again while the alias stays where it is, it tries again every RETRY_SECONDS.
        """
        with self._lock:
            now = time.monotonic()
            again = self._last is not None and self._last[0] == withdrawn
            if again and self._last is not None and now - self._last[1] < RETRY_SECONDS:
                return
            if self._at_work or (again and not self.configured):
                return
            self._last = withdrawn, now
            self._at_work = self.configured
        if self.configured:
            threading.Thread(
                target=self._roll_back, args=[withdrawn, to, reason], name="rollback", daemon=True
            ).start()
        elif is_first():  # of several workers, only the first is given an operator
            log.warning("the alias stays on version %s: no operator is set", withdrawn)

    def _roll_back(self, withdrawn: str, to: str | None, reason: str) -> None:
        settings = self._settings
        name, _, alias = settings.model_uri.removeprefix("models:/").partition("@")
        who = f"arithmetic-lm service on {socket.gethostname()}"
        try:
            with connect(
                settings.mlflow_tracking_uri,
                timeout=settings.registry_timeout_seconds,
                credentials=(settings.operator_username, self._password, self._token),
            ) as client:
                now = roll_back(client, name, alias, withdrawn, to, who, reason)
        except Problem as problem:
            log.error("rolling %s back from version %s: %s", alias, withdrawn, problem)
        else:
            if now is None:
                log.info("the alias %s has left version %s already", alias, withdrawn)
            else:
                log.warning("rolled %s back from version %s to %s", alias, withdrawn, now)
        finally:
            self._at_work = False
