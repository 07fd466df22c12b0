"""`kill -9` anywhere in `dvc repro`: the next one ends in the same bytes, nothing is lost."""

import pytest

from benchmarks.kills import survive


@pytest.mark.slow
def test_a_few_dozen_kills_lose_nothing():
    """A sample of `make bench-kills`: dvc alone and its whole group, every stage by chance."""
    tally = survive(kills=24, a_round=12, seed=7)
    assert tally.kills >= 24
    assert tally.alone > 0
    assert tally.kills > tally.alone
