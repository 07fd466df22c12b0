"""The operator's hand of the service: moves the alias back, if it was given the credentials."""

import logging
import socket
import threading

from arithmetic.errors import Problem
from registry.operator import roll_back
from registry.pull import connect
from serving.settings import Settings

log = logging.getLogger(__name__)


class Operator:
    """OPERATOR_TOKEN, or OPERATOR_USERNAME with OPERATOR_PASSWORD; without them it does nothing.

    What the service itself reads with (MLFLOW_TRACKING_…) need not be allowed to write.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._token = settings.operator_token.get_secret_value()
        self._password = settings.operator_password.get_secret_value()

    @property
    def configured(self) -> bool:
        return bool(self._token or self._settings.operator_username)

    def roll_back(self, withdrawn: str, to: str | None, reason: str) -> None:
        """Begin to roll the alias back, in a thread: a slow registry holds up no check."""
        if not self.configured:
            log.warning("the alias stays on version %s: no operator is set", withdrawn)
            return
        threading.Thread(
            target=self._roll_back, args=[withdrawn, to, reason], name="rollback", daemon=True
        ).start()

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
            log.error("the alias stays on version %s: %s", withdrawn, problem)
            return
        if now is None:
            log.info("the alias %s has left version %s already", alias, withdrawn)
        else:
            log.warning("rolled %s back from version %s to %s", alias, withdrawn, now)
