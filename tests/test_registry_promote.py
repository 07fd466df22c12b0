"""arithmetic.gate and registry.promote: what may become Production, and the way back."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from arithmetic.errors import InvalidParams, RegistryProblem
from arithmetic.gate import Certificate, Gate, refusals
from arithmetic.grammar import Grammar
from registry import ALIAS, MODEL, history, promote, record, signing, store
from registry.errors import PromotionRefused, RegistryUnreachable, VersionNotFound
from registry.history import History
from scripts import walk
from tests import registry_fixtures

SMALL, LARGE = Grammar(("+", "-"), 9), Grammar(("+", "-"), 99)


def certificate(grammar: Grammar = SMALL, **changes: Any) -> Certificate:
    found: dict[str, Any] = {
        "bundle_sha256": "0" * 64,
        "grammar": grammar,
        "complete": True,
        "equations": 200,
        "errors": 0,
        "errors_by_operation": {"+": 0, "-": 0},
        "failures": (),
        "smallest_margin": 4.0,
    }
    return Certificate(**found | changes)


def wrong(count: int, grammar: Grammar = SMALL, listed: tuple[str, ...] = ()) -> Certificate:
    counts = {"+": count, "-": 0}
    return certificate(grammar, errors=count, errors_by_operation=counts, failures=listed)


@pytest.mark.parametrize(
    ("candidate", "production", "max_errors", "figures"),
    [
        (certificate(), None, 0, []),
        (certificate(), wrong(3), 0, []),
        (certificate(complete=False, equations=150), None, 0, ["150"]),
        (wrong(5), None, 4, ["5 errors", "max_errors is 4"]),
        (wrong(5), certificate(), 9, ["5 errors", "Production makes 0"]),
        (wrong(5), wrong(5), 9, []),
        (certificate(), certificate(LARGE), 0, ["0-9)", "0-99)"]),
        (certificate(Grammar(("+",), 99)), certificate(), 0, ["(+ over 0-99)", "(+ - over 0-9)"]),
        # Errors outside of Production's smaller domain do not count against the candidate...
        (wrong(2, LARGE, ("10+1=", "99+9=")), certificate(), 9, []),
        (wrong(2, LARGE, ("10+1=", "9+9=")), certificate(), 9, ["1 errors", "Production makes 0"]),
        # ...but where the list of them was cut, it is not known that they are outside.
        (wrong(2, LARGE, ("10+1=",)), certificate(), 9, ["between 0 and 2", "Production makes 0"]),
    ],
)
def test_the_gate_names_each_broken_condition_with_both_figures(
    candidate: Certificate, production: Certificate | None, max_errors: int, figures: list[str]
) -> None:
    """The four conditions of the issue, and the domains of different size among them."""
    found = refusals(candidate, production, Gate(max_errors=max_errors))
    assert len(found) == bool(figures)
    for figure in figures:
        assert figure in found[0]


def test_a_graph_that_answers_otherwise_is_refused() -> None:
    (refusal,) = refusals(certificate(disagreements=7), None, Gate(max_errors=9))
    assert "disagrees with decoding on 7 equations" in refusal


def test_an_override_without_a_reason_is_refused(root: Path) -> None:
    with pytest.raises(RegistryProblem, match="give a reason"):
        promote.promote("1", root, override=" ")


def test_a_margin_that_rounding_could_bridge_is_refused_where_one_is_demanded() -> None:
    thin = certificate(smallest_margin=0.2)
    (refusal,) = refusals(thin, None, Gate(max_errors=0, min_margin=0.5))
    assert "0.2" in refusal
    assert "promote.min_margin is 0.5" in refusal
    assert refusals(certificate(), None, Gate(max_errors=0, min_margin=0.5)) == []
    assert refusals(thin, None, Gate(max_errors=0)) == []


def test_a_margin_that_is_no_number_is_refused() -> None:
    gate = Gate(max_errors=0, min_margin=0.5)
    [refusal] = refusals(certificate(smallest_margin=float("nan")), None, gate)
    assert "smallest margin is nan" in refusal


def test_the_history_of_production_takes_in_moves_by_hand() -> None:
    """Someone may set the alias in MLflow's pages between two promotions."""
    there = {"1", "2", "3"}.__contains__
    second = History().promoted("1").promoted("2")
    assert second.target(there) == "1"
    by_hand = second.noticing("3")
    assert by_hand == History("3", ("1", "2"))
    assert by_hand.target(there) == "2"
    assert by_hand.rolled_back("2").target(there) == "1"
    assert second.noticing("1") == History("1", ()), "a return by hand is a return"
    assert second.noticing(None).target(there) == "2", "the alias was deleted by hand"
    assert second.target({"2"}.__contains__) is None, "version 1 was deleted"


@pytest.fixture(scope="module")
def recorded(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 and 2 without errors, version 3 with three."""
    root = registry_fixtures.fresh(pipeline, tmp_path_factory.mktemp("promote"))
    registry_fixtures.with_errors(root, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert record.record(root).version == "1"
        registry_fixtures.another_model(root)
        assert record.record(root).version == "2"
        registry_fixtures.another_model(root)
        registry_fixtures.with_errors(root, 3)
        assert record.record(root).version == "3"
    return root


@pytest.fixture
def root(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recorded checkout with no Production yet."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = client_of(recorded)
    client.delete_registered_model_alias(MODEL, ALIAS)
    history.write_history(client, History())
    params = yaml.safe_load((recorded / "params.yaml").read_text())
    params["promote"] = {"max_errors": 0}
    (recorded / "params.yaml").write_text(yaml.safe_dump(params))
    return recorded


def client_of(root: Path) -> MlflowClient:
    return MlflowClient(store.default_uri(root))


def tags_of(root: Path, version: str) -> dict[str, str]:
    return dict(client_of(root).get_model_version(MODEL, version).tags)


def test_a_promotion_sets_the_alias_and_signs(root: Path) -> None:
    """Who, when and why stay with the version; a second time changes nothing."""
    done = promote.promote("1", root, reason="first exact model")
    assert (done.version, done.previous, done.changed) == ("1", None, True)
    assert promote.production(root) == "1"
    tags = tags_of(root, "1")
    assert tags["promoted_reason"] == "first exact model"
    assert "@" in tags["promoted_by"]
    assert tags["promoted_at"].endswith("+00:00")
    assert tags["gate"] == "passed"
    assert not promote.promote("1", root).changed


def test_a_refusal_names_the_figures_and_changes_nothing(root: Path) -> None:
    promote.promote("1", root)
    before = tags_of(root, "3")
    with pytest.raises(PromotionRefused, match=r"3 errors, and promote\.max_errors is 0"):
        promote.promote("3", root)
    assert promote.production(root) == "1"
    assert tags_of(root, "3") == before


def test_the_gate_reads_params(root: Path) -> None:
    """`max_errors` is the user's to set; a misspelt key is not passed over in silence."""
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["promote"] = {"max_errors": 3}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    assert promote.promote("3", root).changed
    params["promote"] = {"max_errors": 3, "max_error": 3}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(InvalidParams, match=r"promote\.max_error in params\.yaml"):
        promote.promote("2", root)
    del params["promote"]
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(InvalidParams, match="no section `promote`"):
        promote.promote("2", root)
    (root / "params.yaml").write_bytes(b"promote: \xff")
    with pytest.raises(InvalidParams, match=r"does not read .*utf-8"):
        promote.promote("2", root)
    (root / "params.yaml").write_text(yaml.safe_dump(params))


def test_an_override_leaves_its_reason_and_what_it_passed_over(root: Path) -> None:
    promote.promote("1", root)
    done = promote.promote("3", root, override="a demonstration of errors")
    assert promote.production(root) == "3"
    assert len(done.overridden) == 2
    tags = tags_of(root, "3")
    assert (tags["gate"], tags["gate_override"]) == ("overridden", "a demonstration of errors")
    assert "3 errors" in tags["gate_conditions_passed_over"]


def test_an_override_without_need_leaves_no_mark(root: Path) -> None:
    """A version that passes has passed, whatever option was given."""
    promote.promote("1", root, override="in case")
    assert tags_of(root, "1")["gate"] == "passed"


def test_rollback_goes_back_step_by_step(root: Path) -> None:
    """Also over a version that was promoted by hand in MLflow's pages."""
    promote.promote("1", root)
    promote.promote("2", root)
    client_of(root).set_registered_model_alias(MODEL, ALIAS, "3")
    assert promote.rollback(root, "version 3 was a mistake").version == "2"
    assert tags_of(root, "3")["rolled_back_reason"] == "version 3 was a mistake"
    assert tags_of(root, "2")["restored_from"] == "3"
    assert promote.rollback(root).version == "1"
    with pytest.raises(VersionNotFound, match="no earlier Production"):
        promote.rollback(root)
    assert promote.production(root) == "1"


def test_a_candidate_is_compared_with_the_version_promoted_by_hand(root: Path) -> None:
    promote.promote("3", root, override="to have a worse one")
    client_of(root).set_registered_model_alias(MODEL, ALIAS, "2")
    with pytest.raises(PromotionRefused, match="3 errors, and Production makes 0"):
        promote.promote("3", root)


def test_damaged_files_and_foreign_certificates_are_refused(root: Path) -> None:
    """The gate judges bytes, not tags: of the bundle, and of the evaluation that speaks for it."""
    promote.promote("2", root)
    client = client_of(root)
    model_id = str(client.get_model_version(MODEL, "1").source).removeprefix("models:/")
    weights = root / "mlartifacts" / "models" / model_id / "artifacts/artifacts/bundle"
    weights /= "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole + b"!")
    with pytest.raises(PromotionRefused, match=r"weights\.safetensors has digest \w{12}, and"):
        promote.promote("1", root)
    weights.unlink()
    with pytest.raises(PromotionRefused, match=r"weights\.safetensors"):
        promote.promote("1", root)
    weights.write_bytes(whole)

    own = tags_of(root, "1")["certificate"]
    foreign = tags_of(root, "2")["certificate"]
    edited = json.dumps(json.loads(own) | {"evaluation_sha256": "0" * 64})
    lost = json.dumps(json.loads(own) | {"run_id": "0" * 32})
    complaints = {
        foreign: "speaks of bundle",
        edited: "certificate",
        lost: "not in the store",
        "{": "was edited and is no certificate",
        '{"run_id": 3}': "was edited and is no certificate",
    }
    for tag, complaint in complaints.items():
        client.set_model_version_tag(MODEL, "1", "certificate", tag)
        with pytest.raises(PromotionRefused, match=complaint):
            promote.promote("1", root)
    client.delete_model_version_tag(MODEL, "1", "certificate")
    with pytest.raises(PromotionRefused, match="has no certificate"):
        promote.promote("1", root)
    client.set_model_version_tag(MODEL, "1", "certificate", own)
    assert promote.production(root) == "2"
    assert promote.promote("1", root).changed


def test_a_rollback_to_damaged_files_is_refused(root: Path) -> None:
    """Serving would refuse them, so Production stays."""
    promote.promote("1", root)
    promote.promote("2", root)
    client = client_of(root)
    own = tags_of(root, "1")["bundle_sha256"]
    client.set_model_version_tag(MODEL, "1", "bundle_sha256", "0" * 64)
    with pytest.raises(PromotionRefused, match="did not roll back to version 1"):
        promote.rollback(root)
    client.set_model_version_tag(MODEL, "1", "bundle_sha256", own)
    assert promote.production(root) == "2"


@pytest.mark.parametrize("edited", ["", "[]", "{", '{"current": 1, "earlier": []}'])
def test_an_edited_history_is_refused_with_its_mend(root: Path, edited: str) -> None:
    """The tag is in MLflow's pages, where anybody can type into it."""
    promote.promote("1", root)
    client = client_of(root)
    client.set_registered_model_tag(MODEL, history.TAG, edited)
    with pytest.raises(RegistryProblem, match=r"production_history .* delete the tag"):
        promote.promote("2", root)
    client.delete_registered_model_tag(MODEL, history.TAG)
    assert promote.promote("2", root).changed
    assert promote.rollback(root).version == "1", "the alias was still known"


@pytest.mark.parametrize("number", ["x", "3.0", "-1", "٣", "", "models:/arithmetic-lm/3"])
def test_a_version_is_a_number(root: Path, number: str) -> None:
    with pytest.raises(RegistryProblem, match="no version number; give digits"):
        promote.promote(number, root)


@pytest.mark.parametrize("number", ["4", "0", "99999999999999999999"])
def test_an_unknown_version_says_which_there_are(root: Path, number: str) -> None:
    with pytest.raises(VersionNotFound, match=f"no version {number}; there are? 1, 2, 3"):
        promote.promote(number, root)


def test_leading_zeros_are_the_same_version(root: Path) -> None:
    """`make promote VERSION=01` is version 1, and its tags are the ones that change."""
    assert promote.promote("01", root).version == "1"
    assert not promote.promote("1", root).changed


def test_with_nothing_registered_the_sentence_says_what_to_run(root: Path, tmp_path: Path) -> None:
    empty = registry_fixtures.fresh(root, tmp_path)
    assert promote.production(empty) is None
    with pytest.raises(VersionNotFound, match="none is registered yet; run `dvc repro`"):
        promote.promote("1", empty)
    with pytest.raises(VersionNotFound, match="not registered yet; run `dvc repro`"):
        promote.rollback(empty)


def test_make_run_promotes_only_what_is_its_to_promote(root: Path) -> None:
    """Where there is no Production yet, or a version that this very run registered."""
    registered = {"1", "2", "3"}
    # The bundle in the workspace is version 3, which makes errors.
    with pytest.raises(PromotionRefused):
        walk.choose(root, registered - {"3"})
    promote.promote("1", root)
    assert "left as it is; `make promote VERSION=3`" in walk.choose(root, registered)
    assert "Production stays version 1: version 3 was not promoted" in walk.choose(
        root, registered - {"3"}
    )
    assert promote.production(root) == "1"
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["promote"] = {"max_errors": 3}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    client_of(root).delete_registered_model_alias(MODEL, ALIAS)
    assert walk.choose(root, registered) == f"version 3 of {MODEL} is new and now {ALIAS}"
    assert walk.choose(root, registered) == f"version 3 of {MODEL} is {ALIAS}"


def test_the_command_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `make promote` and `make rollback` print, and their exit status."""
    monkeypatch.chdir(root)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["promote", *arguments])
        code = 0
        try:
            promote.main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    assert run("1") == (
        0,
        "version 1 of arithmetic-lm is now Production (there was none before)\n",
        "",
    )
    assert run("2", "--reason", "newer")[0] == 0
    code, out, err = run("3")
    assert (code, out) == (1, "")
    assert err.startswith("error: version 3 was not promoted")
    assert err.count("\n") == 1
    assert "before: version 2" in run("--rollback")[1]
    assert run()[0] == run("1", "--rollback")[0] == 1


def test_a_lost_server_is_one_sentence(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryUnreachable, match="start it"):
        promote.promote("1", root)


def test_a_user_without_a_name_promotes_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`docker run --user 1234`: there is no such user in /etc/passwd."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(promote.os, "getuid", lambda: 4242)
    assert promote.promote("1", root).changed
    assert tags_of(root, "1")["promoted_by"].startswith("uid 4242@")


def test_two_promotions_at_once_do_not_lose_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate has compared with a Production that is none any more."""
    promote.promote("1", root)
    read = promote.read_history

    def meanwhile(client: MlflowClient) -> History:
        client.set_registered_model_alias(MODEL, ALIAS, "3")
        return read(client)

    monkeypatch.setattr(promote, "read_history", meanwhile)
    with pytest.raises(PromotionRefused, match="from version 1 to 3; look why, and repeat"):
        promote.promote("2", root)
    assert promote.production(root) == "3"


def test_a_promotion_killed_before_its_notes_is_completed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote.promote("1", root)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(promote, "write_history", killed)
        with pytest.raises(KeyboardInterrupt):
            promote.promote("2", root, reason="first try")
    assert promote.production(root) == "2"
    assert not promote.promote("2", root, reason="once more").changed
    tags = tags_of(root, "2")
    assert (tags["promoted_reason"], tags["promoted_from"]) == ("once more", "1")
    assert promote.rollback(root).version == "1"


def test_a_rollback_asks_for_the_signature_that_a_promotion_asks_for(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote.promote("1", root)
    promote.promote("2", root)
    _, public = signing.make_keys(tmp_path / "pair")
    monkeypatch.setenv("TRUSTED_KEY", str(public))
    with pytest.raises(PromotionRefused, match="did not roll back to version 1: the bundle is not"):
        promote.rollback(root)
    assert promote.production(root) == "2"
