"""Name the points at which `benchmarks.kills` kills a process."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """Describe where a process is killed.

    Attributes:
        stage: during which it is to happen.
        module: of `python -m`; `repro` is DVC itself.
        event: of the hook, a regular expression.
        after: events count from this one on.
        nth: which of the events; 0 is a random one.
        effect: `half` or `empty`: what the kill leaves of the file that is being written.
        target: `self` or `group`.
    """

    name: str
    stage: str
    module: str
    event: str
    after: str = ""
    nth: int = 1
    effect: str = ""
    target: str = "self"


LOCK = r"^open .*dvc\.lock$"
CHECKPOINT = r"^os\.rename \.checkpoints/"
ANY, STORE_OPENED = "", r"^sqlite3\.connect$"  # thousands of events between two statements
REGISTER = Point("in register", "register", "stages.register", ANY, STORE_OPENED, 0)
PROMOTION = Point("in promotion", "promotion", "registry.promotion", ANY, STORE_OPENED, 0)
POINTS = (
    Point("between two splits", "generate", "stages.generate", r"^open data/test\.csv$"),
    Point("run-cache entry opened", "generate", "repro", r"^open .*\.dvc/cache/runs/"),
    Point("before dvc.lock is written", "generate", "repro", LOCK),
    Point("rwlock emptied", "generate", "repro", r"^open .*\.dvc/tmp/rwlock$", effect="empty"),
    Point("checkpoint half-written", "train", "stages.train", CHECKPOINT, effect="half"),
    Point("before a checkpoint is replaced", "train", "stages.train", CHECKPOINT, nth=3),
    Point("weights without history", "train", "stages.train", r"^open metrics/history\.csv$"),
    Point("dvc.lock half-written", "train", "repro", LOCK, effect="half"),
    Point("decoder opened", "export", "stages.export", r"^open model/decoders/"),
    Point("dvc.lock emptied", "export", "repro", LOCK, effect="empty"),
    Point("metrics without report", "evaluate", "stages.evaluate", r"^open reports/"),
    REGISTER,
    REGISTER,
)
