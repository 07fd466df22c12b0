"""Test promotion and rollback by aliases, through the gate."""

import subprocess
import sys
from pathlib import Path

import pytest

from arithmetic.errors import InvalidParamsError
from registry import DIGEST_TAG, MODEL_NAME, PREVIOUS, PRODUCTION
from registry.client import open_client
from registry.download import alias_target
from registry.exceptions import PromotionRefusedError, VersionNotFoundError
from registry.gate import read_gate
from registry.promotion import promote, rollback
from tests.small_project import ROOT


@pytest.fixture
def params(versions: Path) -> Path:
    """Return the folder with the params.yaml of the gate; the store has three versions."""
    return versions.parent / "project-1"


def aliases() -> tuple[str | None, str | None]:
    client = open_client()
    return alias_target(client, PRODUCTION), alias_target(client, PREVIOUS)


def test_promotion_moves_both_aliases_and_tags_the_version(params):
    promote("1", params)
    assert aliases() == ("1", None)
    done = promote("2", params, reason="fewer parameters")
    assert aliases() == ("2", "1")
    assert done == "version 2 of arithmetic-lm is Production now, before: version 1"
    tags = open_client().get_model_version(MODEL_NAME, "2").tags
    assert tags["reason"] == "fewer parameters"
    assert tags["promoted_at"]
    assert "@" in tags["promoted_by"]
    assert "already" in promote("2", params)
    assert aliases() == ("2", "1")


def test_gate_refuses_and_changes_nothing_but_an_override_passes(params):
    promote("1", params)
    open_client().set_model_version_tag(MODEL_NAME, "3", "errors", "0")  # nobody trusts a tag
    with pytest.raises(PromotionRefusedError, match=r"90 errors.*90 errors, Prod") as raised:
        promote("3", params)
    assert "OVERRIDE_GATE" in raised.value.hint
    with pytest.raises(PromotionRefusedError, match="reason"):
        promote("3", params, override=" ")
    assert aliases() == ("1", None)
    done = promote("3", params, override="a demonstration")
    assert "gate overridden: 90 errors, promote.max_errors is 0; 90 errors, Production has" in done
    tags = open_client().get_model_version(MODEL_NAME, "3").tags
    assert tags["reason"] == "gate overridden: a demonstration"


def test_rollback_swaps_the_aliases_and_refuses_after_a_move_by_hand(params):
    with pytest.raises(VersionNotFoundError, match="no version with the alias Production"):
        rollback()
    promote("1", params)
    with pytest.raises(PromotionRefusedError, match="Previous"):
        rollback()
    promote("2", params)
    rollback()
    assert aliases() == ("1", "2")
    rollback(reason="it was the network")
    assert aliases() == ("2", "1")
    open_client().set_registered_model_alias(MODEL_NAME, PRODUCTION, "3")
    with pytest.raises(PromotionRefusedError, match="moved by hand") as raised:
        rollback()
    assert "make promote VERSION=1" in raised.value.hint
    assert aliases() == ("3", "1")


def test_promotion_killed_before_production_moves_is_completed_by_a_repeat(params, monkeypatch):
    promote("1", params)
    client_class = type(open_client())
    move = client_class.set_registered_model_alias

    def interrupted(self, name, alias, version):
        if alias == PRODUCTION:
            raise KeyboardInterrupt
        move(self, name, alias, version)

    with monkeypatch.context() as patch:
        patch.setattr(client_class, "set_registered_model_alias", interrupted)
        with pytest.raises(KeyboardInterrupt):
            promote("2", params)
    assert aliases() == ("1", "1")
    promote("2", params)
    assert aliases() == ("2", "1")


def test_unknown_version_names_those_that_exist(params):
    with pytest.raises(VersionNotFoundError, match="no version 9") as raised:
        promote("9", params)
    assert "1, 2, 3" in raised.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("promote: {max_errors: 0}\npromote: {max_errors: 90}\n", "promote in lines 1, 2"),
        ("promote: {max_errors: 0, max_eror_rate: 1.0}\n", "max_eror_rate"),
        ("train: {seed: 1}\n", "promote"),
    ],
)
def test_gate_with_a_mistake_is_refused(tmp_path, text, message):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InvalidParamsError, match=message):
        read_gate(tmp_path)


@pytest.mark.parametrize(
    ("health", "clause"),
    [
        ({"accuracy": {"checked": 1000, "wrong": 0, "failed": 0}}, None),
        ({"accuracy": {"checked": 999, "wrong": 0, "failed": 0}}, "checked 999 of 1,000"),
        ({"accuracy": {"checked": 5000, "wrong": 1, "failed": 0}}, "counted 1 errors"),
        ({"accuracy": {"checked": 5000, "wrong": 0, "failed": 2}}, "counted 2 errors"),
        ({"model_version": "2"}, "serves version 2"),
        ({"model_digest": "0"}, "serves version 1"),
        (None, "does not answer"),
    ],
)
def test_candidate_service_must_have_answered_without_an_error(
    params, serve_health, health, clause
):
    digest = open_client().get_model_version(MODEL_NAME, "1").tags[DIGEST_TAG]
    served = {"model_version": "1", "model_digest": digest}
    url = serve_health(**served | health) if health else "http://127.0.0.1:9"
    if clause is None:
        promote("1", params, candidate_url=url)
        assert aliases() == ("1", None)
        return
    with pytest.raises(PromotionRefusedError, match=clause):
        promote("1", params, candidate_url=url)


def test_command_line_prints_error_and_hint(versions):
    command = [sys.executable, "-m", "registry.promotion", "99"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: arithmetic-lm has no version 99\nhint: ")
