"""What can go wrong between this project and MLflow.

RegistryProblem
├── RegistryUnreachable   no answer from the server, or the store does not open
├── VersionNotFound       no such model, version or alias
├── PromotionRefused      the gate says no; nothing was changed
├── StaleWorkspace        the files are not what dvc.lock says; nothing was recorded
├── FilesMissing          files of a run or version are not in the store
├── Owed                  a recording was kept for later, as the store did not take it
├── BrokenLink            `trace` found a link of the chain that does not hold
└── UnusableKey           the key for signing or verifying is no such key
BrokenBundle (arithmetic.errors)
├── DigestMismatch        the files of a version are not the ones it was registered with
└── UntrustedBundle       unsigned, or not signed by the key that is trusted
"""

import re

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


class FilesMissing(RegistryProblem):
    """Files of a run or version are not in the store; recording again puts them there."""


class UntrustedBundle(BrokenBundle):
    """A bundle is unsigned, or not signed by the key that is trusted."""


class UnusableKey(RegistryProblem):
    """The file that was named as a key is none, or of another kind."""


class Owed(RegistryProblem):
    """The store did not take a recording; it was kept and can be delivered."""


class BrokenLink(RegistryProblem):
    """A link of the chain from commit to service does not hold."""


def shown(address: object) -> str:
    """A server's address as a sentence may show it: without user and password."""
    return re.sub(r"//[^/]*@", "//", str(address))
