import pytest

from arithmetic.errors import UserError
from benchmarks.serving_profile import parse

RAW = """\
MainThread;run (asyncio/runners.py:118);answer (serving/predict.py:40) 3
MainThread;run (asyncio/runners.py:118);send (uvicorn/http.py:9) 2
MainThread;run (asyncio/runners.py:118);send (uvicorn/http.py:12) 1
process 1 2
"""


def test_shares_are_of_the_innermost_frame_over_all_its_lines():
    figures = parse(RAW)
    assert figures["samples"] == 6
    assert figures["packages"] == {"serving": 0.5, "uvicorn": 0.5}
    assert figures["functions"]["uvicorn/http.py send"] == 0.5


def test_a_sample_without_frames_is_an_error():
    with pytest.raises(UserError, match="no Python frame"):
        parse("")
