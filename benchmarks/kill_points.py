"""Where `make bench-kills` strikes: random moments of each stage, and named points inside them."""

import json
import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path

HOOK = Path(__file__).resolve().parent / "kill_hook"
STAGES = ("start", "generate", "train", "export", "evaluate", "record")
# SQLAlchemy and MLflow leave thousands of audit events between two statements.
ANY_EVENT, STORE_OPENED = "", "^sqlite3.connect$"


@dataclass(frozen=True)
class Point:
    """A place in a process, as kill_hook/sitecustomize.py recognises it.

    Attributes:
        name: for the table.
        module: of `python -m`; `repro` is DVC itself.
        event: audit event, `open PATH` (for writing) or `rename FROM TO`, a regular expression.
        after: another one, from which on events count; empty for all.
        nth: which of them; 0 never.
        effect: `half` and `empty` cut the file first, as a death in the middle of its writing does.
        group: the whole process group dies, not only the process that is there.
    """

    name: str
    module: str
    event: str
    after: str = ""
    nth: int = 1
    effect: str = ""
    group: bool = False

    def variables(self) -> dict[str, str]:
        """The environment that arms it."""
        return {"KILL_POINT": json.dumps(asdict(self))}


LOCK = r"^open .*dvc\.lock$"
CHECKPOINT = r"^rename \.checkpoints/\S+\.draft .*\.safetensors$"

# In the order of the pipeline, so that one round can walk through them.
NAMED: dict[str, tuple[Point, ...]] = {
    "generate": (
        Point("between two data sets", "stages.generate", r"^open data/test\.csv$"),
        Point("DVC's run cache half entered", "repro", r"^open .*\.dvc/cache/runs/"),
        Point("before dvc.lock is made", "repro", LOCK),
        Point("DVC's rwlock emptied", "repro", r"^open .*\.dvc/tmp/rwlock$", effect="empty"),
    ),
    "train": (
        Point("inside a checkpoint write", "stages.train", CHECKPOINT, effect="half"),
        Point("before a checkpoint is in place", "stages.train", CHECKPOINT, nth=3),
        Point("weights without a history", "stages.train", r"^open metrics/history\.csv$"),
        # Not later than export: a stage that DVC restores from its run cache is passed over, and
        # the recording would be through before its own points are armed.
        Point("dvc.lock half written", "repro", LOCK, effect="half"),
    ),
    "export": (
        Point("one of two graphs", "stages.export", r"^open bundle/decoders/subtr\S+$"),
        Point("dvc.lock emptied", "repro", LOCK, effect="empty"),
    ),
    "evaluate": (
        Point("an evaluation without its table", "stages.evaluate", r"^open metrics/exact\S+$"),
    ),
    "record": (
        Point("inside recording", "registry.record", ANY_EVENT, STORE_OPENED, 0),
        Point("inside recording", "registry.record", ANY_EVENT, STORE_OPENED, 0),
    ),
}
PROMOTION = Point("inside promotion", "registry.promote", ANY_EVENT, STORE_OPENED, 0)


def drawn(point: Point, events: int, rng: random.Random) -> Point:
    """The point as it strikes: at a random event where `nth` is 0, and whom."""
    nth = point.nth or rng.randint(1, events)
    return replace(point, nth=nth, group=rng.random() < 0.5)
