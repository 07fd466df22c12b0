"""make bench-kills: `kill -9` at 1,000 points of `dvc repro`, and once in peace after each dozen.

A round starts from a fresh checkout of a small configuration (operands 0-9) and walks through the
stages: in each, `dvc repro` is killed at random moments, by turns `dvc` alone (its child goes on as
an orphan) and its whole process group, and at the named points of `benchmarks.kill_points`. Then it
may finish, and is promoted, killed there as well. Afterwards every output must have the bytes of an
undisturbed run, and the store must hold one recorded run and one complete version with the alias.

The result is written after every round; another run goes on from it while the code and the params
are the same, so 1,000 kills need not be one sitting.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from arithmetic.errors import reported
from benchmarks.kill_points import HOOK
from benchmarks.kill_round import Tally, one_round, undisturbed
from benchmarks.results_file import RESULTS, write
from benchmarks.small import ROOT
from benchmarks.sources import digest


def survive(kills: int, a_stage: int, seed: int, jobs: int, done: Tally) -> Iterator[Tally]:
    """Rounds until `kills` are reached, from `done` on; yields the growing tally.

    Raises:
        Problem: something was lost.
    """
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(jobs) as pool:
        reference = undisturbed(Path(scratch))
        while done.kills < kills:
            seeds = [f"{seed} {done.rounds + n}" for n in range(jobs)]
            for tally in pool.map(lambda name: one_round(reference, a_stage, name), seeds):
                done.add(tally)
            yield done


def figures(tally: Tally, seconds: float, code: str) -> dict[str, Any]:
    return {
        "kills": tally.kills,
        "rounds": tally.rounds,
        "lost": 0,  # the first loss ends it
        "at_random_moments_of": dict(sorted(tally.random.items())),
        "at_named_points": dict(sorted(tally.named.items())),
        "of": dict(sorted(tally.whom.items())),
        "stopped_with_a_word": dict(sorted(tally.stopped.items())),
        "ended_before_their_kill": tally.ended_before,
        "mended": dict(sorted(tally.mended.items())),
        "seconds": round(seconds),
        "code": code,
    }


def before(name: str, code: str) -> tuple[Tally, float]:
    """What an earlier run of the same code survived, and in how many seconds."""
    path = RESULTS / f"{name}.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if found.get("code") != code:
        return Tally(), 0.0
    tally = Tally(
        Counter(found["at_random_moments_of"]),
        Counter(found["at_named_points"]),
        Counter(found["of"]),
        Counter(found["stopped_with_a_word"]),
        Counter(found["mended"]),
        found["rounds"],
        found["ended_before_their_kill"],
    )
    print(f"{tally.kills} kills were survived before; going on", flush=True)
    return tally, float(found["seconds"])


def code_digest() -> str:
    """Of what is killed and how: another one makes earlier kills count no more."""
    rooms = (f"{room}/*.py" for room in ("arithmetic", "stages", "registry"))
    hook = f"{HOOK.relative_to(ROOT)}/*.py"
    return digest("*.yaml", "benchmarks/small.py", "benchmarks/kill*.py", hook, *rooms)


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill dvc repro at random moments.")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--a-stage", type=int, default=2, help="random kills in each stage")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="rounds at once")
    parser.add_argument("--result", default="kills")
    given = parser.parse_args()
    with reported():
        code = code_digest()
        done, seconds = before(given.result, code)
        started = time.monotonic() - seconds
        for tally in survive(given.kills, given.a_stage, given.seed, given.jobs, done):
            seconds = time.monotonic() - started
            write(given.result, figures(tally, seconds, code))
            print(f"{tally.kills} kills survived in {seconds:.0f} s", flush=True)
        print(json.dumps(figures(done, seconds, code), indent=2))


if __name__ == "__main__":
    main()
