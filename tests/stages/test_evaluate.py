"""The evaluation counts every equation once and every failure as itself, NaN among them."""

import json
import shutil
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from arithmetic import artifacts, formats, grammar
from arithmetic.grammar import Grammar
from arithmetic.inference import OnnxModel
from arithmetic.tokenizer import END, IDS
from stages import evaluate, export
from stages.certify import Equations, classify
from stages.dataset import read_split
from stages.evaluate import choose_decoded, count, count_outcomes, round_margin
from stages.params import Evaluate

GRAMMAR = Grammar(("+", "-"), 9)
PARAMS = Evaluate(seed=1, lowest_margins=20, random_sample=20, sampled_equations=40, beam_width=1)


def evaluate_all(**changes: object) -> tuple[dict, dict[Path, pd.DataFrame]]:
    test, trained_on = (read_split(name, GRAMMAR) for name in ("test", "train"))
    return evaluate.evaluate(test, trained_on, PARAMS.model_copy(update=changes))


def run_evaluation(**changes: object) -> dict:
    return evaluate_all(**changes)[0]


@pytest.fixture(scope="module")
def evaluated(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of `trained` after the stage; tests do not change it."""
    folder = Path(shutil.copytree(trained, tmp_path_factory.mktemp("evaluated") / "workspace"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(joblib, "cpu_count", lambda: 1)
        evaluate.main()
    return folder


@pytest.fixture
def report(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Return what the stage writes, in its folder."""
    monkeypatch.chdir(evaluated)
    return json.loads(evaluate.REPORT.read_bytes())


def test_report_counts_every_equation_once(report, evaluated):
    assert report["domain"] == {"operations": ["+", "-"], "max_operand": 9}
    assert (report["complete"], report["equations"]) == (True, 200)
    for part in (report["by_operation"], report["by_answer_length"]):
        assert sum(group["equations"] for group in part.values()) == 200
        assert sum(group["errors"] for group in part.values()) == report["errors"]
    test_lengths = report["test"]["by_answer_length"].values()
    assert sum(group["equations"] for group in test_lengths) == report["test"]["equations"] == 20
    assert report["never_trained_on"]["equations"] == 200 - 120
    assert report["decoding_differs_from_pass"] == report["graph_differs_from_decoding"] == 0
    assert report["errors"] <= report["decoded"] <= 200
    assert report["model_digest"] == artifacts.digest(evaluated / "model")
    decoder = evaluated / "model" / artifacts.decoder_path("add_subtract")
    assert report["decoders_sha256"] == {"add_subtract": artifacts.file_digest(decoder)}
    margins = [group["minimum_margin"] for group in report["by_operation"].values()]
    assert report["minimum_margin"] == min(margins) < 0
    assert "sampled" not in report
    assert "beam" not in report["test"]


def test_metrics_are_five_flat_figures_and_lengths_are_a_plot(report):
    metrics = json.loads(evaluate.METRICS.read_bytes())
    assert metrics == {
        **{name: report[name] for name in ("errors", "equations", "exact_match", "minimum_margin")},
        "test_exact_match": report["test"]["exact_match"],
    }
    lengths = pd.read_csv(evaluate.BY_LENGTH)
    sums = lengths.groupby("equations_of")[["equations", "errors"]].sum()
    assert sums["equations"].to_dict() == {"domain": 200, "test": 20}
    assert sums.loc["domain", "errors"] == report["errors"]


def test_carry_chains_and_error_map_count_every_equation(report):
    chains, squares = pd.read_csv(evaluate.BY_CHAIN), pd.read_csv(evaluate.ERROR_MAP)
    assert chains[["operation", "carry_chain", "equations"]].to_numpy().tolist() == [
        ["+", 0, 55],
        ["+", 1, 45],
        ["-", 0, 55],
        ["-", 1, 45],
    ]
    assert chains["minimum_margin"].min() == report["minimum_margin"]
    assert squares["equations"].tolist() == [1] * 200
    assert set(squares["width"]) == {1}
    assert squares["errors"].sum() == report["errors"] > 0
    wrong = squares[squares["errors"] > 0].head(evaluate.FIRST_FAILURES)
    columns = ["operand_1", "operation", "operand_2"]
    texts = [f"{a}{operation}{b}=" for a, operation, b in wrong[columns].to_numpy()]
    assert texts == [failure["equation"] for failure in report["first_failures"]]


def test_error_map_of_a_large_domain_has_few_bins_of_whole_width():
    a, b = (part.ravel() for part in np.mgrid[:100, :100])
    domain = pd.DataFrame({"operation": "+", "a": a, "b": b, "wrong": (a == 7) & (b == 99)})
    squares = evaluate.map_errors(domain, Grammar(("+",), 99))
    assert len(squares) == evaluate.MAP_BINS**2
    assert set(squares["equations"]) == {25}
    wrong = squares[squares["errors"] > 0].to_dict("records")
    row = {"operation": "+", "operand_1": 5, "operand_2": 95, "errors": 1, "equations": 25}
    assert wrong == [{**row, "width": 5}]


def test_errors_are_those_of_decoding_everything(report, evaluated):
    model = OnnxModel(evaluated / "model")
    texts = [f"{a}{operation}{b}=" for operation in "+-" for a in range(10) for b in range(10)]
    equations = [GRAMMAR.parse(text) for text in texts]
    wrong = {
        str(equation): answer.text
        for equation, answer in zip(equations, model.answer(equations), strict=True)
        if answer.text != grammar.solve(equation) or not answer.ended
    }
    assert report["errors"] == len(wrong) > 0
    first = list(wrong.items())[: evaluate.FIRST_FAILURES]
    assert [(f["equation"], f["predicted"]) for f in report["first_failures"]] == first


def test_report_is_the_same_for_one_and_two_workers(workspace, monkeypatch):
    monkeypatch.setattr(evaluate, "SHARD", 30)
    monkeypatch.setattr(evaluate, "DECODED_SHARD", 7)
    one, plots = evaluate_all(beam_width=4)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    again, same_plots = evaluate_all(beam_width=4)
    assert json.dumps(again) == json.dumps(one)
    for path in plots:
        assert same_plots[path].to_csv() == plots[path].to_csv()
    beam = one["test"]["beam"]
    assert (beam["width"], beam["equations"]) == (4, 20)
    assert 0 <= beam["answers_changed"] <= 20


def test_report_does_not_depend_on_the_size_of_the_decoded_sample(workspace):
    few = run_evaluation(lowest_margins=0, random_sample=1)
    all_of_them = run_evaluation(lowest_margins=200, random_sample=200)
    # What fails the pass is decoded always; some of it has the right answer after wrong steps.
    assert few["errors"] <= few.pop("decoded") < all_of_them.pop("decoded") == 200
    assert few == all_of_them


def test_large_domain_is_sampled_with_a_bound(workspace, monkeypatch):
    monkeypatch.setattr(grammar, "LARGEST_LISTED", 150)
    few = np.array([0, 9]), np.array([9, 0])
    monkeypatch.setattr("stages.domain.edge_cases", lambda *_: few)
    report = run_evaluation()
    sampled = report["sampled"]
    assert report["complete"] is False
    assert sampled["edge_cases"] == 4
    assert sampled["edge_cases"] + sampled["random"] == report["equations"] <= 44
    assert sampled["edge_case_errors"] + sampled["random_errors"] == report["errors"] > 0
    assert sampled["random_errors"] / sampled["random"] < sampled["error_rate_bound"] <= 1
    assert sampled["confidence"] == 0.95


def test_broken_model_is_reported_as_broken_and_a_decoder_of_other_weights_noticed(workspace):
    path = workspace / "model" / artifacts.WEIGHTS
    save_file({name: tensor.flip(0) for name, tensor in load_file(path).items()}, path)
    assert run_evaluation()["graph_differs_from_decoding"] > 100
    export.main()
    report = run_evaluation()
    assert report["errors"] > 150
    assert report["minimum_margin"] < 0
    assert len(report["first_failures"]) == evaluate.FIRST_FAILURES
    assert report["test"]["exact_match"] < 0.5
    assert report["graph_differs_from_decoding"] == 0


@pytest.mark.parametrize("place", [0, 250, 499])
def test_nan_margins_are_failures_wherever_they_stand(place):
    margins = np.full(500, 9.0, np.float32)
    margins[place] = np.nan
    few = PARAMS.model_copy(update={"lowest_margins": 1, "random_sample": 1})
    rows = choose_decoded(margins, few, np.random.default_rng(1))
    assert place in rows
    assert len(rows) <= 3
    assert np.isnan(round_margin(pd.DataFrame({"margin": margins})))


def test_model_of_nan_weights_has_errors_and_a_nan_margin(workspace):
    path = workspace / "model" / artifacts.WEIGHTS
    save_file({name: tensor * np.nan for name, tensor in load_file(path).items()}, path)
    export.main()
    report = run_evaluation()
    assert report["errors"] == 200
    assert np.isnan(report["minimum_margin"])


@pytest.mark.parametrize(
    ("answer", "end", "kind"),
    [
        ([IDS["+"], 2, 0], END, None),
        ([IDS["+"], 3, 0], END, "errors"),
        ([IDS["="], 2, 0], END, "hallucinations"),
        ([IDS["+"], 2, 0], 0, "infinite_generation"),
        ([IDS["+"], 9, 9], END, "out_of_range"),
    ],
)
def test_each_kind_of_failure_is_counted_as_itself(answer, end, kind):
    one = np.array([1])
    steps = formats.get_format("+").lengths(1).scratchpad
    generated = np.array([[*[0] * steps, *answer, end]])
    rows = pd.DataFrame(classify(Equations("+", one, one), generated, GRAMMAR))
    kinds = ("hallucinations", "infinite_generation", "out_of_range")
    assert count_outcomes(rows) == {name: int(name == kind) for name in kinds}
    assert count(rows)["errors"] == int(kind is not None)


def test_exact_match_of_nothing_is_none():
    assert count(pd.DataFrame({"wrong": []})) == {"errors": 0, "equations": 0, "exact_match": None}
