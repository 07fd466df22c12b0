"""What can go wrong between this project and MLflow.

RegistryProblem
├── RegistryUnreachable   no answer from the server, or the store does not open
├── VersionNotFound       no such model, version or alias
├── PromotionRefused      the gate says no; nothing was changed
└── StaleWorkspace        the files are not what dvc.lock says; nothing was recorded
BrokenBundle (arithmetic.errors)
└── DigestMismatch        the files of a version are not the ones it was registered with
"""

from arithmetic.errors import BrokenBundle, RegistryProblem


class RegistryUnreachable(RegistryProblem):
    """No answer from the tracking server, or the store does not open."""


class VersionNotFound(RegistryProblem):
    """The registry has no such model, version or alias."""


class PromotionRefused(RegistryProblem):
    """A condition of the gate is not met; nothing was changed."""


class StaleWorkspace(RegistryProblem):
    """The workspace's files are not what dvc.lock says of them; nothing was recorded."""


class DigestMismatch(BrokenBundle):
    """A version's files are not the ones it was registered with."""
