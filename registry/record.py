"""record: the pipeline's files to one MLflow run and one registered version.

    python -m registry.record       in the repository's root; the last stage of `dvc repro`

The files are the truth and MLflow is their projection, so recording twice adds nothing. A run is
known by the tag `run_digest` (what dvc.lock says of the stages), a version by the tag
`bundle_sha256`. The same bundle evaluated anew is a new run, whose certificate goes to the existing
version.

When the store does not take it, the recording is kept (`registry.owed`), the sentence says so, and
the exit status is OWED: `dvc repro` has promised a recorded version, and there is none yet.
"""

import fcntl
import functools
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from arithmetic.errors import BrokenBundle, reported
from registry import claims, origin, owed, recording, signing, store, workspace
from registry.errors import Owed, RegistryProblem
from registry.recording import Recorded
from registry.workspace import Workspace

# sysexits.h: "temporary failure, that can be tried again later".
OWED = 75


def record(root: Path) -> Recorded:
    """Record the finished pipeline in `root`; repeat as often as you like.

    Raises:
        StaleWorkspace: the files are not what dvc.lock says.
        BrokenBundle: the bundle is incomplete.
        DigestMismatch: files of the version in the store were changed.
        RegistryUnreachable: no answer from the store.
        RegistryProblem: the store refuses.
    """
    signing.configured()
    found = workspace.read(root)
    with one_at_a_time(root):
        return _record(root, found)


def record_or_keep(
    root: Path, delivered: Callable[[Recorded], object] = lambda _: None
) -> Recorded:
    """Record what is still owed to this store, oldest first, and then the pipeline in `root`.

    Args:
        delivered: told of each earlier recording as it is brought.

    Raises:
        Owed: the store did not take it, or an earlier one; it is kept.
        and as `record` does, what speaks against the files themselves.
    """
    signing.configured()
    found = workspace.read(root)
    with one_at_a_time(root):
        try:
            _bring_earlier(root, delivered)
            return _record(root, found)
        except RegistryProblem as problem:
            entry = owed.keep(found)
            count = owed.count(root)
            others = f" ({count} recordings are owed in all)" if count > 1 else ""
            raise Owed(
                f"{entry.name} is trained and not recorded: {problem}. It is kept in "
                f"{entry.folder.parent.name}/{entry.folder.name}{others}; `make deliver` delivers "
                "it, whatever is run meanwhile"
            ) from problem


def _bring_earlier(root: Path, delivered: Callable[[Recorded], object]) -> None:
    uri = store.tracking_uri(root)
    for entry in [entry for entry in owed.entries(root) if entry.tracking_uri == uri]:
        try:
            delivered(bring(root, entry))
        except BrokenBundle as problem:  # the order is kept, so what comes after it waits as well
            raise RegistryProblem(f"before it {entry.name} is owed: {problem}") from problem


def bring(root: Path, entry: owed.Entry) -> Recorded:
    """Record one kept recording into the configured store, and keep it no longer.

    Call it within `one_at_a_time`; raises as `record`.
    """
    with owed.opened(entry) as (found, kept), store.opened(root) as client:
        done = recording.write(client, root, found, lambda: kept)
    owed.remove(entry)
    return done


def version_of(bundle_sha256: str, start: Path | None = None) -> str | None:
    """The number of the version that holds this bundle, None if it is not registered."""
    with store.opened(start) as client:
        version = claims.version_of(client, bundle_sha256)
    return None if version is None else str(version.version)


@contextmanager
def one_at_a_time(root: Path) -> Iterator[None]:
    """Wait for other recordings of this clone: `dvc exp run --jobs 2` runs two pipelines."""
    folder = store.root(root) / ".dvc" / "tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "mlflow-record.lock").open("w")
    except OSError as error:
        raise RegistryProblem(
            f"{folder} cannot be written ({error.strerror}); mend that and repeat"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another recording into this store is at work; waiting for it", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)  # let go when it is closed, or the process dies
        yield


def _record(root: Path, found: Workspace) -> Recorded:
    with tempfile.TemporaryDirectory() as scratch, store.opened(root) as client:
        observed = functools.cache(lambda: origin.observe(found, Path(scratch)))
        return recording.write(client, root, found, observed)


def main() -> None:
    with reported():
        try:
            done = record_or_keep(Path.cwd(), lambda one: print(f"delivered: {one}", flush=True))
        except Owed as problem:
            print(f"owed: {problem}", file=sys.stderr)
            raise SystemExit(OWED) from None
        print(done)


if __name__ == "__main__":
    main()
