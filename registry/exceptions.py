"""Define the registry's errors; each is a UserError, shown as `error:` and `hint:`."""

from arithmetic.errors import UserError


class RegistryError(UserError):
    """Report that the MLflow store refuses, or holds something unexpected."""


class RegistryUnreachableError(RegistryError):
    """Report that the MLflow store does not answer or open."""


class VersionNotFoundError(RegistryError):
    """Report that a model URI, version number or alias names no registered version."""


class PromotionRefusedError(RegistryError):
    """Report the violated conditions of a promotion; nothing was changed."""


class StaleWorkspaceError(RegistryError):
    """Report that the workspace's files are not the ones in dvc.lock."""


class BrokenLineageError(RegistryError):
    """Report a link of a version's lineage whose two ends differ."""
