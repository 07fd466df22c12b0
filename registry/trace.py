"""trace: every link from a served answer back to a line of code, printed and checked.

    python -m registry.trace 3      a version; without a number, Production

git commit → dvc.lock → data and code → run → version → bundle → what a service says it serves
(`SERVICE_URL`). Each digest is computed anew from the bytes that are there. The first link that
does not hold ends it with both values and exit status 1. What cannot be known (an uncommitted tree,
data that is not on this disk) is said as that.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from arithmetic.checksum import md5
from arithmetic.errors import Problem, reported
from registry import ALIAS, BUNDLE_PATH, MODEL, SIGNATURE_PATH, commits, signature, store, versions
from registry import workspace as workspaces
from registry.digests import file_digests
from registry.errors import BrokenLink, VersionNotFound
from registry.served import health_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Link:
    """A link that holds.

    Attributes:
        name: what it connects.
        says: the values that agree.
        reservation: whether it says what could not be known.
    """

    name: str
    says: str
    reservation: bool = False

    def __str__(self) -> str:
        return f"{'?' if self.reservation else '='} {self.name:<24} {self.says}"


def trace(
    root: Path,
    number: str | None = None,
    service_url: str | None = None,
    trusted_key: Path | None = None,
) -> Iterator[Link]:
    """The links of a version, from the service back to the commit, each checked before it is given.

    Raises:
        BrokenLink: a link does not hold; the sentence has both values.
        VersionNotFound: there is no such version, or no Production.
        RegistryProblem: the store.
    """
    key = None if trusted_key is None else signature.load_key(trusted_key)
    with store.opened(root) as client:
        if number is None:
            number = versions.aliased(client)
            if number is None:
                raise VersionNotFound(f"no version of {MODEL} is {ALIAS}; promote one, or name one")
        version = versions.get_version(client, number)
        bundle_sha256 = versions.bundle_tag(version)
        if service_url:
            yield _served(service_url, number, bundle_sha256)
        with tempfile.TemporaryDirectory() as scratch:
            try:
                versions.check_files(client, version)
                folder = versions.download(version, Path(scratch))
                if key is not None:
                    signature.verify(folder / BUNDLE_PATH, folder / SIGNATURE_PATH, key)
            except Problem as problem:
                raise BrokenLink(f"version {number} → bundle: {problem}") from problem
            yield Link(
                "version → files", f"{number} → {len(file_digests(folder))} files, as listed"
            )
            yield Link("version → bundle", f"{number} → {bundle_sha256}")
            if key is not None:
                yield Link("bundle → signature", f"by {trusted_key}")
            run = _run_of(client, version)
            yield Link("version → run", f"{number} → {run.info.run_id} ({run.info.run_name})")
            yield from _recorded_files(client, run, folder / BUNDLE_PATH, Path(scratch), root)


def _served(url: str, number: str, bundle_sha256: str) -> Link:
    health = health_of(url)
    found = (str(health.get("model_version")), str(health.get("bundle_sha256")))
    if found != (number, bundle_sha256):
        raise BrokenLink(
            f"service → version: {url} serves version {found[0]} with bundle {found[1][:12]}, and "
            f"version {number} has bundle {bundle_sha256[:12]}"
        )
    return Link("service → version", f"{url} → {number}, bundle {bundle_sha256[:12]}")


def _run_of(client: "MlflowClient", version: "ModelVersion") -> "Run":
    """The run whose evaluation certifies the version; its tags agree with the version's."""
    from mlflow.exceptions import MlflowException

    try:
        pointer = versions.pointer_of(version)
        certificate = versions.certificate_of(version)
        run = client.get_run(pointer["run_id"])
    except Problem as problem:
        raise BrokenLink(f"version {version.version} → run: {problem}") from problem
    except MlflowException as error:
        if store.is_lost(error):
            raise
        raise BrokenLink(
            f"version {version.version} → run: run {pointer['run_id']} is not in the store"
        ) from error
    for tag, value in versions.described(certificate).items():
        _same(f"version {version.version} → certificate", tag, value, version.tags.get(tag, "none"))
    _same(f"version {version.version} → run", "its stage", "active", str(run.info.lifecycle_stage))
    wanted = {
        "run_digest": pointer["run_digest"],
        "bundle_sha256": versions.bundle_tag(version),
        "evaluation_sha256": pointer["evaluation_sha256"],
        "recorded": "yes",
    }
    for tag, value in wanted.items():
        _same(f"version {version.version} → run", tag, value, run.data.tags.get(tag, "none"))
    return run


def _recorded_files(
    client: "MlflowClient", run: "Run", bundle: Path, scratch: Path, root: Path
) -> Iterator[Link]:
    """The run's dvc.lock, what it says of bundle, metrics and data, and its commit."""
    tags = run.data.tags
    folder = versions.download_run(run, scratch / "run")
    lock = folder / "dvc.lock"
    if not lock.is_file():
        raise BrokenLink(f"run → dvc.lock: run {run.info.run_id} holds no dvc.lock")
    _same("run → dvc.lock", "SHA-256", tags.get("dvc_lock_sha256", "none"),
          file_digests(folder)["dvc.lock"])  # fmt: skip
    try:
        found = workspaces.locked_stages(yaml.safe_load(lock.read_bytes()))
    except (Problem, yaml.YAMLError) as problem:
        raise BrokenLink(f"run → dvc.lock: {problem}") from problem
    digest = workspaces.digest(found)
    _same("run → dvc.lock", "digest of the stages", tags.get("run_digest", "none"), digest)
    yield Link("run → dvc.lock", digest)

    params = {key: value for stage in found.values() for key, value in stage["params"].items()}
    for key, value in params.items():
        text = run.data.params.get(key, "none")
        _same(f"dvc.lock → {key}", "the param", workspaces.param_text(value), text)
    yield Link("dvc.lock → params", f"{len(params)} params of the run")
    outs = {path: value for stage in found.values() for path, value in stage["outs"].items()}
    checked = 0
    for path, value in outs.items():
        top, _, rest = path.partition("/")
        if top in ("bundle", "metrics"):
            place = bundle / rest if top == "bundle" else folder / path
            _same(f"dvc.lock → {path}", "MD5", value, md5(place) if place.exists() else "none")
            checked += 1
    yield Link("dvc.lock → outputs", f"{checked} of bundle/ and metrics/, each hashed again")
    numbers = workspaces.metrics(json.loads((folder / "metrics" / "evaluation.json").read_bytes()))
    for key, number in numbers.items():
        _same(f"outputs → {key}", "the metric", str(number), str(run.data.metrics.get(key, "none")))
    yield Link(
        "outputs → metrics", f"{len(numbers)} numbers of the evaluation, as the run has them"
    )
    yield from _data(root, outs, tags.get("data_digest", "none"), digest)
    yield from _commit(root, tags, digest, found)


def _data(root: Path, outs: dict[str, str], data_digest: str, run_digest: str) -> Iterator[Link]:
    """Data sets: the digest over them, and their bytes where this disk has them."""
    data = workspaces.data_of(outs)
    _same("dvc.lock → data", "data_digest", data_digest, workspaces.digest(data))
    yield Link("dvc.lock → data", f"{len(data)} data sets, {data_digest}")
    base = store.root(root)
    # The second configuration is a DVC project of its own, in a folder of the first.
    projects = [base, *(lock.parent for lock in sorted(base.glob("*/dvc.lock")))]
    present = [project for project in projects if _is_of(project, run_digest)]
    missing = []
    for path, value in data.items():
        cached = Path(".dvc", "cache", "files", "md5", value[:2], value[2:])
        places = [project / path for project in present]
        places += [project / cached for project in projects]
        places = [place for place in places if place.is_file()]
        for place in places:
            _same(f"data → {place.relative_to(base)}", "MD5", value, md5(place))
        if not places:
            missing.append(path)
    if missing:
        yield Link("data → files", f"not on this disk: {', '.join(missing)}", reservation=True)
    else:
        yield Link("data → files", f"{len(data)} files, each hashed again")


def _is_of(project: Path, run_digest: str) -> bool:
    """Whether a project's folder holds the files of a run."""
    try:
        return workspaces.digest(workspaces.stages_in(project)) == run_digest
    except Problem:
        return False


def _commit(
    root: Path, tags: dict[str, str], digest: str, stages: dict[str, dict[str, dict[str, str]]]
) -> Iterator[Link]:
    commit, dirty = tags.get("git_commit", "none"), tags.get("git_dirty") != "no"
    if commit == "none":
        yield Link("commit → dvc.lock", "recorded outside of any git repository", reservation=True)
        return
    try:
        holding = commits.find_lock(root, commit, digest, dirty)
        if holding is None:
            yield Link(
                "commit → dvc.lock",
                f"recorded on top of {commit[:12]} with changes that no commit here holds",
                reservation=True,
            )
            return
        count = commits.check_code(root, holding, stages)
    except BrokenLink as problem:
        raise BrokenLink(f"commit → dvc.lock → code: {problem}") from problem
    later = "" if holding.commit == commit else f" (recorded before it was committed, on {commit})"
    yield Link("commit → dvc.lock", f"{holding.commit} → {holding.lock}{later}")
    yield Link("dvc.lock → code", f"{count} files of that commit, each hashed again")


def _same(link: str, what: str, expected: str, actual: str) -> None:
    if expected != actual:
        raise BrokenLink(f"{link}: {what} is recorded as {expected} and is {actual}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m registry.trace", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("version", nargs="?", help=f"its number; {ALIAS} if left out")
    given = parser.parse_args()
    trusted = os.environ.get("TRUSTED_KEY")
    with reported():
        links = trace(
            Path.cwd(),
            given.version or None,
            os.environ.get("SERVICE_URL"),
            Path(trusted) if trusted else None,
        )
        known = unknown = 0
        for link in links:
            print(link, flush=True)
            known, unknown = known + (not link.reservation), unknown + link.reservation
        print(f"{known} links hold" + (f", {unknown} cannot be known here (?)" if unknown else ""))


if __name__ == "__main__":
    main()
