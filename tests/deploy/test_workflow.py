"""The workflow for a hosted runner: pinned actions, commands that exist, secrets out of reach."""

import re
from typing import Any

import pytest
from ruamel.yaml import YAML

from benchmarks.results_file import ROOT

WORKFLOW = YAML(typ="safe").load(ROOT / ".github/workflows/ci.yaml")
STEPS: list[dict[str, Any]] = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
COMMANDS = "\n".join(step.get("run", "") for step in STEPS)


def test_actions_are_pinned_by_a_tag():
    assert all(
        re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) for step in STEPS if "uses" in step
    )


def test_make_targets_and_scripts_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"\bmake ([a-z-]+)", COMMANDS)
    assert targets
    assert all(re.search(f"^{target}:", makefile, re.MULTILINE) for target in targets)
    assert all((ROOT / path).is_file() for path in re.findall(r"bash (\S+)", COMMANDS))


@pytest.mark.parametrize("step", [step for step in STEPS if "secrets." in str(step)])
def test_code_of_a_pull_request_runs_without_secrets(step):
    assert step["if"] == "github.event_name == 'push'"


def test_no_expression_is_pasted_into_a_shell():
    assert "${{" not in COMMANDS
