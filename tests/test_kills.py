"""`kill -9` anywhere in `dvc repro`: the next one ends in the same bytes, nothing is lost."""

import pytest

from benchmarks.kill_points import NAMED
from benchmarks.kill_round import Tally
from benchmarks.kills import survive


@pytest.mark.slow
def test_a_few_dozen_kills_lose_nothing():
    """A sample of `make bench-kills`: every stage, each named point, dvc alone and its group."""
    *_, tally = survive(kills=24, a_stage=1, seed=7, jobs=2, done=Tally())
    assert tally.kills >= 24
    assert {point.name for points in NAMED.values() for point in points} <= set(tally.named)
    assert tally.named["inside promotion"] > 0
    assert {"dvc alone", "the process group"} <= set(tally.whom)
