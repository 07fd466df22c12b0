"""The proof: the pass agrees with decoding, and every kind of failure is counted."""

import stages  # noqa: F401, I001

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from arithmetic import bundle, layouts
from arithmetic import grammar as grammar_module
from arithmetic.config import ModelConfig, load_config
from arithmetic.decoding import BeamDecoder
from arithmetic.errors import Problem
from arithmetic.grammar import Grammar
from arithmetic.model import Transformer
from arithmetic.tokenizer import END, IDS
from stages.certify import Equations, Prover, Provers
from stages.evaluate import evaluate, picked, read_equations
from stages.tally import Tally
from stages.export import export
from stages.params import validate
from benchmarks import certify_full
from benchmarks.small import params as small_params

PARAMS = validate(small_params()).evaluate


def whole_domain(folder, operation) -> Equations:
    return Equations(operation, *load_config(folder).grammar.equations(operation))


def test_the_pass_decoding_and_the_graph_agree_on_every_equation(tiny_bundle):
    """Three ways to the same verdict, on a model that is right on some and wrong on others."""
    prover = Prover(tiny_bundle)
    verdicts = []
    for operation in "+-":
        equations = whole_domain(tiny_bundle, operation)
        margins, decoded = prover.margins(equations), prover.decode(equations)
        assert (prover.graph(equations) == decoded).all()
        reference = layouts.sequences(
            operation, equations.operand_1, equations.operand_2, prover.digits
        )[:, prover.prompt :]
        assert ((decoded == reference).all(1) == (margins > 0)).all()
        verdicts += (margins > 0).tolist()
    assert any(verdicts)
    assert not all(verdicts), "an exact model would make this test blind: train it less"


def test_a_beam_of_one_is_greedy_and_the_graph_follows_every_width(tiny_bundle):
    """One exported graph for every width; a wide beam answers some equations otherwise."""
    prover = Prover(tiny_bundle)
    changed = 0
    for operation in "+-":
        equations = whole_domain(tiny_bundle, operation)
        greedy = prover.decode(equations)
        assert (prover.beam(equations, 1) == greedy).all()
        for width in (2, 3, 8):
            found = prover.beam(equations, width)
            assert (prover.graph(equations, width) == found).all()
            changed += int((found != greedy).any(1).sum())
    assert changed, "an exact model would make this test blind: train it less"


def test_a_beam_finds_the_most_probable_sequence():
    """Against every sequence there is, where the beam is as wide as they are many."""
    shape = ModelConfig(3, (4,), 8, 1, 2, 2, "content")
    model = Transformer(shape).initialise(torch.Generator().manual_seed(1)).eval()
    with torch.no_grad():
        model.head.normal_(generator=torch.Generator().manual_seed(2))
    prompt = torch.tensor([[0, 1]])
    endings = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    with torch.no_grad():
        logits = model(torch.cat([prompt.expand(9, 2), endings[:, :1]], 1), 0, first_logit=1)
    scores = torch.log_softmax(logits, -1).gather(-1, endings[:, :, None]).sum((1, 2))
    found = BeamDecoder(model, 0, 2)(prompt, torch.zeros(3))
    assert found[0].tolist() == endings[scores.argmax()].tolist()


def test_the_test_split_is_decoded_by_beam_search_when_asked(tiny_bundle):
    test = [whole_domain(tiny_bundle, operation) for operation in "+-"]
    report = evaluate(tiny_bundle, test, [], PARAMS.model_copy(update={"beam_width": 4}))
    beam = report["test"]["beam"]
    assert (beam["width"], beam["equations"]) == (4, 200)
    assert beam["answers_changed"] > 0
    assert "beam" not in evaluate(tiny_bundle, test, [], PARAMS)["test"]


def test_a_domain_too_large_to_list_is_sampled(tiny_bundle, monkeypatch):
    monkeypatch.setattr(grammar_module, "LARGEST_LISTED", 150)
    few = (np.array([0, 9]), np.array([9, 0]))
    monkeypatch.setattr("stages.domain.edge_cases", lambda *_: few)
    params = PARAMS.model_copy(update={"sampled_equations": 40})
    report = evaluate(tiny_bundle, [], [], params)
    assert report["complete"] is False
    found = report["sampled"]
    assert found["edge_cases"] == 4
    assert found["edge_cases"] + found["random"] == report["equations"] <= 44
    assert found["edge_case_errors"] + found["random_errors"] == report["errors"] > 0
    assert found["random_errors"] / found["random"] < found["error_rate_at_most"] <= 1


def test_the_number_of_processes_changes_nothing(tiny_bundle):
    equations = whole_domain(tiny_bundle, "-")
    with Provers(tiny_bundle, 1) as one, Provers(tiny_bundle, 2) as two:
        for method in ("margins", "decode"):
            assert (one.run(method, equations, 7) == two.run(method, equations, 7)).all()


def test_the_report_counts_every_equation_once(pipeline):
    report = json.loads((pipeline / "metrics" / "evaluation.json").read_text())
    assert report["equations"] == 200
    assert report["domain"] == {"operations": ["+", "-"], "max_operand": 9}
    assert report["complete"] is True
    for part in (report, report["test"]):
        for groups in (part["by_operation"], part["by_answer_length"]):
            assert sum(group["equations"] for group in groups.values()) == part["equations"]
            assert sum(group["errors"] for group in groups.values()) == part["errors"]
    assert report["test"]["equations"] == 20
    assert report["never_trained_on"]["equations"] == 200 - 120
    assert report["decoding_differs_from_pass"] == 0
    assert report["graph_differs_from_decoding"] == 0
    assert report["bundle_sha256"] == bundle.digest(pipeline / "bundle")


def test_errors_are_those_of_decoding_everything(pipeline):
    """The shortcut's count is the plain count."""
    report = json.loads((pipeline / "metrics" / "evaluation.json").read_text())
    folder = pipeline / "bundle"
    prover = Prover(folder)
    errors = 0
    for operation, sign in (("+", 1), ("-", -1)):
        equations = whole_domain(folder, operation)
        exact = equations.operand_1 + sign * equations.operand_2
        for row, right in zip(prover.decode(equations), exact, strict=True):
            answer = layouts.read_answer(operation, row, prover.digits)
            errors += answer.text != str(right) or not answer.ended
    assert report["errors"] == errors


def test_a_broken_model_is_reported_and_not_hidden(tiny_bundle, pipeline):
    """Scrambled weights: no calculator stands behind the answers, so they become wrong."""
    path = tiny_bundle / "weights.safetensors"
    weights = {name: tensor.flip(0) for name, tensor in load_file(path).items()}
    save_file(weights, path)
    for operation, graph in export(tiny_bundle, opset=17).items():
        (tiny_bundle / operation).write_bytes(graph)
    grammar = load_config(tiny_bundle).grammar
    data = pipeline / "data"
    report = evaluate(
        tiny_bundle,
        read_equations(data / "test.csv", grammar),
        read_equations(data / "train.csv", grammar),
        PARAMS,
    )
    assert report["errors"] > 150
    assert report["smallest_margin"] < 0
    assert len(report["first_failures"]) == 100
    assert report["test"]["exact_match"] < 0.5


def judged(answer: list[int], end: int) -> Tally:
    """One sum, 1+1=, answered by these two answer tokens and this last token."""
    tally = Tally()
    one = np.array([1])
    tally.add("+", np.array([1]))
    generated = np.array([[0, 2, *answer, end]])
    tally.judge(Equations("+", one, one), generated, ["2"], Grammar(("+",), 9))
    return tally


@pytest.mark.parametrize(
    ("answer", "end", "kind"),
    [
        ([2, 0], END, None),
        ([3, 0], END, "errors"),
        ([IDS["="], 0], END, "hallucinations"),
        ([2, 0], 0, "infinite_generation"),
        ([9, 9], END, "out_of_range"),
    ],
)
def test_each_kind_of_failure_is_counted_as_itself(answer, end, kind):
    report = judged(answer, end).report()
    kinds = ("hallucinations", "infinite_generation", "out_of_range")
    assert {name: report[name] for name in kinds} == {name: int(name == kind) for name in kinds}
    assert report["errors"] == int(kind is not None)


def test_answer_ranges_follow_from_the_domain():
    grammar = Grammar(("+", "-"), 999)
    assert grammar.answer_range("+") == (0, 1998)
    assert grammar.answer_range("-") == (-999, 999)
    assert grammar.answer_range("*") == (0, 998_001)
    assert grammar.answer_range("/") == (0, 999)


def test_quotients_are_judged_by_both_numbers():
    """87/4= is 21r3: right, with another remainder, and out of range."""
    grammar = Grammar(("/",), 99)
    a, b = np.array([87]), np.array([4])
    right = layouts.sequences("/", a, b, 2)[:, layouts.prompt_length(2) :]
    wrong = right.copy()
    wrong[0, -2] = 9
    for generated, errors in ((right, 0), (wrong, 1)):
        tally = Tally()
        tally.add("/", np.array([2]))
        tally.judge(Equations("/", a, b), generated, ["21r3"], grammar)
        report = tally.report()
        assert (report["errors"], report["out_of_range"]) == (errors, 0)
        assert report["by_answer_length"]["2"]["errors"] == errors


def test_a_margin_that_is_no_number_is_decoded_and_refused():
    """NaN compares as false: it must prove nothing, neither here nor at the gate."""
    margins = {"+": np.full(500, np.nan), "-": np.full(500, 9.0)}
    few = PARAMS.model_copy(update={"lowest_margins": 1, "random_sample": 1})
    rows = picked(margins, few, np.random.default_rng(1))
    assert len(rows["+"]) == 500
    assert len(rows["-"]) <= 2


def test_a_killed_process_of_the_evaluation_is_one_sentence(tiny_bundle):
    with Provers(tiny_bundle, 1) as provers:
        equations = whole_domain(tiny_bundle, "+")
        provers.run("margins", equations)
        [process] = provers._pool._processes.values()
        process.kill()
        with pytest.raises(Problem, match=r"ended from outside.*run `dvc repro`"):
            provers.run("margins", equations)


def test_decoding_everything_by_the_graphs_counts_the_same_errors(tiny_bundle, pipeline):
    """`make certify-full` finds errors where there are some; this model makes many."""
    evaluation = json.loads((pipeline / "metrics" / "evaluation.json").read_text())
    wrong = 0
    with Provers(tiny_bundle, 1) as provers:
        for operation in "+-":
            every = whole_domain(tiny_bundle, operation)
            wrong += len(certify_full.wrong_answers(every, provers.run("graph", every), 1))
    assert wrong == evaluation["errors"] > 0
