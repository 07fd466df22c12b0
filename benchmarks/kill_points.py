"""Name the points at which `benchmarks.kills` kills a process."""

from typing import NamedTuple


class Point(NamedTuple):
    """Describe where a process is killed.

    Attributes:
        stage: during which it is to happen.
        module: of `python -m`; `repro` is DVC itself; empty for a random moment.
        event: of the hook, a regular expression.
        after: events count from this one on.
        nth: which of the events, at random.
        effect: `half` or `empty`: what the kill leaves of the file that is being written.
    """

    name: str
    stage: str
    module: str = ""
    event: str = ""
    after: str = ""
    nth: range = range(1, 2)
    effect: str = ""


STAGES = ("start", "generate", "train", "export", "evaluate", "register")
LOCK = r"^open .*dvc\.lock$"
CHECKPOINT = r"^os\.rename \.checkpoints/"
STORE_OPENED = r"^sqlite3\.connect$"
ANY = ""  # thousands of events between two statements, in all about as many as here
REGISTER = Point("in register", "register", "stages.register", ANY, STORE_OPENED, range(1, 10_000))
PROMOTION = Point(
    "in promotion", "promotion", "registry.promotion", ANY, STORE_OPENED, range(1, 25_000)
)
NAMED = (
    Point("between two splits", "generate", "stages.generate", r"^open data/test\.csv$"),
    Point("run-cache entry opened", "generate", "repro", r"^open .*\.dvc/cache/runs/"),
    Point("before dvc.lock is written", "generate", "repro", LOCK),
    Point("rwlock emptied", "generate", "repro", r"^open .*\.dvc/tmp/rwlock$", effect="empty"),
    Point("checkpoint half-written", "train", "stages.train", CHECKPOINT, effect="half"),
    Point("before a checkpoint is replaced", "train", "stages.train", CHECKPOINT, nth=range(3, 4)),
    Point("weights without history", "train", "stages.train", r"^open metrics/history\.csv$"),
    Point("dvc.lock half-written", "train", "repro", LOCK, effect="half"),
    Point("decoder opened", "export", "stages.export", r"^open model/decoders/"),
    Point("dvc.lock emptied", "export", "repro", LOCK, effect="empty"),
    Point("metrics without report", "evaluate", "stages.evaluate", r"^open reports/"),
    *(REGISTER, REGISTER, PROMOTION, PROMOTION),
)
RANDOM = [Point(f"random, {stage}", stage) for stage in STAGES for _ in range(2)]
ORDER = (*STAGES, "promotion")
POINTS = sorted([*NAMED, *RANDOM], key=lambda point: ORDER.index(point.stage))
