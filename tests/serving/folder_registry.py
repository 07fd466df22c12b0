"""A registry over directories: versions and aliases in memory, downloads by copying.

`registry.download` verifies; this does the same with its functions, without MLflow.
"""

import shutil
from pathlib import Path

from arithmetic import artifacts
from registry.download import ModelVersionRef, verify
from registry.exceptions import RegistryUnreachableError, VersionNotFoundError

NAME = "arithmetic-lm"


class FolderRegistry:
    """Serve `models:/arithmetic-lm@Production` from directories.

    Attributes:
        verify: the real registry's function.
        is_up: whether it answers.
        downloads: the versions that were downloaded, in order.
    """

    verify = staticmethod(verify)

    def __init__(self, *directories: Path):
        self.versions = {str(n): path for n, path in enumerate(directories, 1)}
        self.digests = {n: artifacts.digest(path) for n, path in self.versions.items()}
        self.production: str | None = "1"
        self.is_up = True
        self.downloads: list[str] = []

    def resolve(self, model_uri: str) -> ModelVersionRef:
        """Return the version that Production names, or the one in the URI."""
        self._check_up()
        number = model_uri.rpartition("/")[2] if "@" not in model_uri else self.production
        if number is None:
            raise VersionNotFoundError("no version has the alias Production")
        source = str(self.versions[number])
        return ModelVersionRef(NAME, number, self.digests[number], source, "run")

    def download(self, ref: ModelVersionRef, into: Path) -> Path:
        """Copy and verify."""
        self._check_up()
        self.downloads.append(ref.version)
        target = into / f"{ref.name}-{ref.version}-{ref.digest[:12]}"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(ref.source, target)
        return verify(target, ref.digest)

    def _check_up(self) -> None:
        if not self.is_up:
            raise RegistryUnreachableError("no answer from the registry")
