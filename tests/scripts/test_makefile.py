"""The Makefile: its help, its values, its proxies."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A target of another makefile that shows what a recipe gets.
SHOW = "include Makefile\nshow:\n\t@printenv REASON no_proxy NO_PROXY\n"


def make(*arguments, makefile="Makefile", **environment):
    return subprocess.run(
        ["make", "-s", "-f", makefile, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_lists_every_target_in_one_column():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):(?!=)", text, re.MULTILINE)
    lines = [line for line in make().stdout.splitlines() if line.startswith("  ")]
    assert sorted(line.split()[0] for line in lines) == sorted(targets)
    assert {len(found) for line in lines for found in re.findall(r"^  \S+ +", line)} == {29}
    assert max(len(line) for line in lines) <= 110


def test_help_survives_a_closed_pipe():
    command = ["bash", "-c", "make help | head -1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert done.stderr == b""


@pytest.mark.parametrize("target", ["promote", "experiment", "hard-cases"])
def test_a_missing_value_is_named(target):
    done = make(target, "-o", "setup")  # only the recipe
    assert done.returncode
    assert re.match(r"error: no [A-Z]+\nhint: make [a-z-]+ [A-Z]+=", done.stderr)


def show(tmp_path, *arguments, **environment):
    makefile = tmp_path / "show.mk"
    makefile.write_text(SHOW, encoding="utf-8")
    return make("show", *arguments, makefile=str(makefile), **environment).stdout.splitlines()


def test_values_keep_their_quotes_and_dollars(tmp_path):
    reason = """costs $5, $(shell date) "and" it's `nothing` #1"""
    assert show(tmp_path, f"REASON={reason}")[0] == reason
    assert show(tmp_path, REASON=reason)[0] == reason


def test_loopback_never_goes_through_a_proxy(tmp_path):
    lines = show(tmp_path, REASON="-", no_proxy="a.example", NO_PROXY="b.example")
    assert lines[1:] == ["a.example,b.example,127.0.0.1,localhost"] * 2


@pytest.mark.slow
def test_sbom_lists_what_the_serving_lock_installs():
    done = make("--old-file=setup", "sbom")
    assert (done.returncode, done.stderr) == (0, "")
    components = json.loads((ROOT / "sbom.json").read_bytes())["components"]
    lock = (ROOT / "requirements/serving.lock").read_text(encoding="utf-8")
    assert {f"{part['name']}=={part['version']}" for part in components} == {
        *re.findall(r"^[^ #]\S+==\S+", lock, re.MULTILINE)
    }
