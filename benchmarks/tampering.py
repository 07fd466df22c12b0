"""make tampering: what is tampered with, and which door refuses it.

A small pipeline (operands 0-9) is recorded and signed for real, twice; version 1 is Production and
a service serves it. Then version 2, its run, its dvc.lock or the workspace it came from is tampered
with in every way of the table, and each door is tried: recording, promoting, pulling as a service
does, tracing. A door that lets it through ends the program with an error. Afterwards the alias is
moved to the tampered version by hand, and the service must go on serving version 1.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from arithmetic.errors import Problem, reported
from benchmarks.results_file import write
from benchmarks.small import checkout, dvc_environment, git
from registry import ALIAS, BUNDLE_TAG, MODEL, pull, record, signature, signing, store
from registry.promote import promote
from registry.trace import trace
from scripts.client import ask, get
from scripts.service import service
from scripts.tracking_server import free_port, tracking_server

DOORS = ("record", "promote", "serve", "trace")
# What a planted pickle does when somebody loads it: it makes a file.
_PICKLE = b"cposix\nsystem\n(S'touch %s'\ntR."


@dataclass(frozen=True)
class Tampering:
    """One way to tamper.

    Attributes:
        name: as the table says it.
        apply: does it, and undoes it at the end of the block.
        refused_by: door to a word that its refusal must hold.
        harmless_at: door to why it may pass there.
    """

    name: str
    apply: Callable[[], AbstractContextManager[None]]
    refused_by: dict[str, str]
    harmless_at: dict[str, str]


@dataclass(frozen=True)
class Tried:
    """What a door did: `refused` with its sentence, or `passed` with the reason why it may."""

    tampering: str
    door: str
    outcome: str
    says: str


@dataclass
class House:
    """A recorded, signed pipeline with its store, its server and its service."""

    root: Path
    trusted_key: Path
    cache: Path
    tracking_uri: str = ""
    address: str = ""

    def version_files(self, number: str = "2") -> Path:
        """The folder in the store with the files of a version."""
        with store.opened(self.root) as client:
            model = str(client.get_model_version(MODEL, number).source).removeprefix("models:/")
        return self.root / "mlartifacts" / "models" / model / "artifacts"

    def run_files(self) -> Path:
        """The folder in the store with the files of version 2's run."""
        with store.opened(self.root) as client:
            run = client.get_model_version(MODEL, "2").run_id
        return self.root / "mlartifacts" / str(run) / "artifacts"

    def enter(self, door: str) -> None:
        """Try a door with version 2; raises Problem if it refuses."""
        if door == "record":
            record.record(self.root)
        elif door == "promote":
            self._promote()
        elif door == "trace":
            for _ in trace(self.root, "2", trusted_key=self.trusted_key):
                pass
        else:
            with tempfile.TemporaryDirectory() as cache:
                pulled = pull.pull(f"models:/{MODEL}/2", self.tracking_uri, Path(cache))
                signature.check(pulled.bundle, self.trusted_key)

    def _promote(self) -> None:
        # Without a Production to compare with, so that a refusal is for the tampering alone.
        with store.opened(self.root) as client:
            client.delete_registered_model_alias(MODEL, ALIAS)
        try:
            promote("2", self.root)
        finally:
            with store.opened(self.root) as client:
                client.set_registered_model_alias(MODEL, ALIAS, "1")

    def serves(self, number: str) -> bool:
        """Whether the service answers by this version, now or within ten seconds."""
        deadline = time.monotonic() + 10
        while get(f"{self.address}/health")["model_version"] != number:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return bool(ask(self.address, "7+2=")["model_version"] == number)

    def _until_refused(self) -> None:
        """Wait until the service says something against version 2."""
        deadline = time.monotonic() + 30
        while True:
            health = get(f"{self.address}/health")
            if "2" in health["refused"] or "version 2" in (health["reason"] or ""):
                return
            if time.monotonic() > deadline:
                raise Problem("the service says nothing against the tampered version")
            time.sleep(0.1)

    def keeps_serving(self) -> None:
        """Move the alias to version 2 by hand: the service must stay with version 1.

        What it pulled while version 2 was whole (a promotion was tried) is deleted: those bytes
        are the registered ones, and it would rightly serve them.
        """
        if not self.serves("1"):
            raise Problem("the service does not serve version 1 any more")
        for pulled in [path for path in self.cache.glob(f"{MODEL}-2-*") if path.is_dir()]:
            shutil.rmtree(pulled)
        with store.opened(self.root) as client:
            client.set_registered_model_alias(MODEL, ALIAS, "2")
        try:
            self._until_refused()
            served, answer = get(f"{self.address}/health"), ask(self.address, "7+2=")
        finally:
            with store.opened(self.root) as client:
                client.set_registered_model_alias(MODEL, ALIAS, "1")
        if (served["model_version"], answer["model_version"]) != ("1", "1"):
            raise Problem(f"the service serves version {served['model_version']}, not 1")


@contextmanager
def changed(path: Path, change: Callable[[bytes], bytes]) -> Iterator[None]:
    """The file with other bytes, as long as the block lasts."""
    before = path.read_bytes()
    path.write_bytes(change(before))
    try:
        yield
    finally:
        path.write_bytes(before)


def flipped(content: bytes) -> bytes:
    """One bit in the middle is another."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@contextmanager
def planted(folder: Path, canary: Path) -> Iterator[None]:
    """A pickle that makes `canary` when it is loaded, where MLflow and a careless reader look."""
    content = _PICKLE % str(canary).encode()
    places = [folder / "python_model.pkl", folder / "artifacts" / "bundle" / "weights.pkl"]
    for place in places:
        place.write_bytes(content)
    try:
        yield
    finally:
        for place in places:
            place.unlink()


@contextmanager
def pointed(root: Path, source: str) -> Iterator[None]:
    """Version 2's source in the database is another, which MLflow's own API refuses to write."""
    database = sqlite3.connect(root / "mlflow.db")
    try:
        query = "SELECT source, storage_location FROM model_versions WHERE version = 2"
        before = database.execute(query).fetchone()
        update = "UPDATE model_versions SET source = ?, storage_location = ? WHERE version = 2"
        database.execute(update, (source, source))
        database.commit()
        try:
            yield
        finally:
            database.execute(update, before)
            database.commit()
    finally:
        database.close()


@contextmanager
def without(path: Path) -> Iterator[None]:
    """The file is not there."""
    before = path.read_bytes()
    path.unlink()
    try:
        yield
    finally:
        if not path.exists():  # recording may have put a new one there
            path.write_bytes(before)


@contextmanager
def linked(folder: Path, elsewhere: Path) -> Iterator[None]:
    """The folder lies elsewhere, with a link in its place."""
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    try:
        yield
    finally:
        folder.unlink()
        elsewhere.rename(folder)


@contextmanager
def tagged(root: Path, key: str, value: str) -> Iterator[None]:
    """A tag of version 2 says something else."""
    with store.opened(root) as client:
        before = client.get_model_version(MODEL, "2").tags[key]
        client.set_model_version_tag(MODEL, "2", key, value)
    try:
        yield
    finally:
        with store.opened(root) as client:
            client.set_model_version_tag(MODEL, "2", key, before)


def tamperings(house: House, scratch: Path) -> list[Tampering]:
    """All of them, for this house."""
    files, run, root = house.version_files(), house.run_files(), house.root
    names = sorted(
        path.relative_to(files / "artifacts" / "bundle").as_posix()
        for path in (files / "artifacts" / "bundle").rglob("*")
        if path.is_file()
    )
    found = [
        Tampering(
            f"a flipped bit in {name}",
            lambda path=files / "artifacts" / "bundle" / name: changed(path, flipped),  # type: ignore[misc]
            {"record": name, "promote": name, "serve": "digest|config", "trace": name},
            {},
        )
        for name in names
    ]
    other = scratch / "other"
    signing.make_keys(other)
    own = os.environ[signing.VARIABLE]
    os.environ[signing.VARIABLE] = f"{other}.pem"
    signing.sign(root / "bundle", scratch / "other.sig")
    os.environ[signing.VARIABLE] = own
    foreign, sig = (scratch / "other.sig").read_bytes(), files / "artifacts" / "bundle.sig"
    outside = scratch / "outside"
    nothing = "does not read it"
    return [
        *found,
        Tampering(
            "a pickle planted in the version",
            lambda: planted(files, scratch / "canary"),
            {"record": "pkl", "promote": "pkl", "trace": "pkl"},
            {"serve": "asks for the bundle's files by name, so it is not even fetched"},
        ),
        Tampering(
            "code of the version edited",
            lambda: changed(files / "pyfunc_model.py", lambda text: text + b"\nimport os\n"),
            {"record": "pyfunc_model", "promote": "pyfunc_model", "trace": "pyfunc_model"},
            {"serve": "executes no code of a version, so it is not even fetched"},
        ),
        Tampering(
            "source outside of the store",
            lambda: pointed(root, outside.as_uri()),
            dict.fromkeys(DOORS, "outside"),
            {},
        ),
        Tampering(
            "files of the version behind a link out of the store",
            lambda: linked(files, outside),
            {"record": "outside", "promote": "outside", "trace": "outside"},
            {"serve": "asks the server for them, and they are the registered bytes"},
        ),
        Tampering(
            "the version's digest edited in its tag",
            lambda: tagged(root, BUNDLE_TAG, "0" * 64),
            {"record": "edited", "promote": "000000", "serve": "000000", "trace": "000000"},
            {},
        ),
        Tampering(
            "the version's errors edited in its tag",
            lambda: tagged(root, "errors", "4711"),
            {"trace": "4711"},
            {
                "record": "writes the tag anew from the evaluation",
                "promote": "judges by the evaluation",
                "serve": "the files are whole; its self-test alone would forgive more",
            },
        ),
        Tampering(
            "the evaluation edited in the store",
            lambda: changed(run / "metrics" / "evaluation.json", flipped),
            {"record": "evaluation", "promote": "certificate", "trace": "certificate"},
            {"serve": nothing},
        ),
        Tampering(
            "dvc.lock edited in the store",
            lambda: changed(run / "dvc.lock", lambda text: text.replace(b"md5: ", b"md5: 0", 1)),
            {"trace": "dvc.lock"},
            {"record": nothing, "promote": nothing, "serve": nothing},
        ),
        Tampering(
            "dvc.lock edited in the workspace",
            lambda: changed(root / "dvc.lock", lambda text: text.replace(b"md5: ", b"md5: 0", 1)),
            {"record": "differs from dvc.lock"},
            {"promote": nothing, "serve": nothing, "trace": "reads the recorded one"},
        ),
        Tampering(
            "a swapped data file",
            lambda: changed(root / "data" / "train.csv", flipped),
            {"record": "train.csv", "trace": "train.csv"},
            {"promote": nothing, "serve": nothing},
        ),
        Tampering(
            "signed by another key",
            lambda: changed(sig, lambda _: foreign),
            {"record": "sig", "promote": "sig", "serve": "trusted key", "trace": "sig"},
            {},
        ),
        Tampering(
            "the signature edited",
            lambda: changed(sig, lambda text: text.replace(b'"sig"', b'"gis"')),
            {"record": "sig", "promote": "sig", "serve": "model-signing", "trace": "sig"},
            {},
        ),
        Tampering(
            "the signature removed",
            lambda: without(sig),
            {"promote": "sig", "serve": "not signed", "trace": "sig"},
            {"record": "signs again and puts it back"},
        ),
    ]


def attempt(house: House, tampering: Tampering, door: str) -> Tried:
    """Tamper, try the door, undo; raises Problem if the door let pass what it must refuse."""
    with tampering.apply():
        try:
            house.enter(door)
        except Problem as problem:
            says = str(problem)
            words = tampering.refused_by.get(door)
            if words is None or not any(word in says for word in words.split("|")):
                raise Problem(f"{tampering.name}: {door} says something else: {says}") from problem
            return Tried(tampering.name, door, "refused", says)
    if door in tampering.refused_by:
        raise Problem(f"{tampering.name} went through {door}")
    return Tried(tampering.name, door, "passed", tampering.harmless_at[door])


def try_all(house: House, scratch: Path) -> list[Tried]:
    """Every tampering at every door, the service being looked at after each."""
    if not house.serves("1"):
        raise Problem("the service does not serve version 1 to begin with")
    for door in DOORS:
        house.enter(door)  # what is whole passes, or refusing would mean nothing
    tried = []
    for tampering in tamperings(house, scratch):
        tried += [attempt(house, tampering, door) for door in DOORS]
        if "serve" in tampering.refused_by:
            with tampering.apply():
                house.keeps_serving()
        elif not house.serves("1"):
            raise Problem("the service does not serve version 1 any more")
    canary = scratch / "canary"
    if canary.exists():
        raise Problem("a planted pickle was executed")
    with planted(house.version_files(), canary):  # and it is one that would have been
        loading = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
        pickled = house.version_files() / "python_model.pkl"
        subprocess.run([sys.executable, "-c", loading, str(pickled)], check=True)
    if not canary.exists():
        raise Problem("the planted pickle is a dud, so that it was not executed shows nothing")
    return tried


@contextmanager
def built(root: Path, scratch: Path) -> Iterator[House]:
    """A house over the finished small pipeline in `root`, a git repository."""
    private, public = signing.make_keys(scratch / "own")
    before = {name: os.environ.get(name) for name in (signing.VARIABLE, "MLFLOW_TRACKING_URI")}
    os.environ[signing.VARIABLE] = str(private)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    try:
        _lenient(root)
        git(root, "add", "-A")
        git(root, "commit", "-q", "-m", "version 1")
        record.record(root)
        promote("1", root)
        _retrained(root)
        git(root, "add", "-A")
        git(root, "commit", "-q", "-m", "version 2")
        record.record(root)
        house = House(root, public, scratch / "cache")
        with tracking_server(root) as house.tracking_uri:
            os.environ |= {"TRUSTED_KEY": str(public), "MODEL_CACHE": str(house.cache)}
            os.environ["WATCH_SECONDS"] = "0.2"
            try:
                port, log = free_port("127.0.0.1"), scratch / "service.log"
                with service(root, house.tracking_uri, port, log) as house.address:
                    yield house
            finally:
                for name in ("TRUSTED_KEY", "MODEL_CACHE", "WATCH_SECONDS"):
                    del os.environ[name]
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _lenient(root: Path) -> None:
    """A gate that the small model passes, so that a refusal is for the tampering alone."""
    path = root / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["promote"] = {"max_errors": 10**6, "min_margin": -(10.0**6)}
    path.write_text(yaml.safe_dump(params))


def _retrained(root: Path) -> None:
    """Another model by the pipeline itself, the seed being another."""
    path = root / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["train"]["seed"] = 2
    path.write_text(yaml.safe_dump(params))
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "evaluate"],
        cwd=root,
        env=dvc_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Problem(f"the small pipeline does not run: {done.stderr[-2000:]}")


def figures(tried: list[Tried]) -> dict[str, object]:
    """What goes into the result file."""
    refused = [one for one in tried if one.outcome == "refused"]
    return {
        "tamperings": len({one.tampering for one in tried}),
        "doors_tried": len(tried),
        "refused": len(refused),
        "harmless_there": len(tried) - len(refused),
        "let_through": 0,  # the first one would have ended the program
        "executed": 0,
        "tried": [asdict(one) for one in tried],
    }


def table(tried: list[Tried]) -> str:
    """A line for each tampering, a column for each door."""
    width = 2 + max(len(one.tampering) for one in tried)
    lines = [" " * width + "".join(f"{door:<10}" for door in DOORS)]
    for name in dict.fromkeys(one.tampering for one in tried):
        outcomes = {one.door: one.outcome for one in tried if one.tampering == name}
        lines.append(f"{name:<{width}}" + "".join(f"{outcomes[door]:<10}" for door in DOORS))
    return "\n".join(lines)


def main() -> None:
    with reported(), tempfile.TemporaryDirectory() as folder:
        root, scratch = Path(folder) / "small", Path(folder) / "scratch"
        root.mkdir()
        scratch.mkdir()
        checkout(root)
        subprocess.run(
            [sys.executable, "-m", "dvc", "repro", "-q", "evaluate"],
            cwd=root,
            env=dvc_environment(),
            check=True,
        )
        with built(root, scratch) as house:
            tried = try_all(house, scratch)
        write("tampering", figures(tried))
        print(table(tried))


if __name__ == "__main__":
    main()
