"""Every figure of the README stands in a file that a command wrote, and every name in it exists."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


LABELS = {
    "service": "this service, + and −",
    "multiplication": "this service, ×",
    "division": "this service, ÷",
    "constant": "FastAPI, a constant answer",
    "torch": "FastAPI, torch eager",
    "litserve": "LitServe",
    "bentoml": "BentoML",
    "mlflow": "mlflow models serve",
    "mlserver": "MLServer",
}


def read(name: str) -> dict:
    return json.loads((ROOT / name).read_text(encoding="utf-8"))


def row(beginning: str) -> str:
    """The second cell of the results table's row that begins so."""
    (line,) = [line for line in README.splitlines() if line.startswith(f"| {beginning}")]
    return line.split("|")[2].strip().strip("*")


def test_the_errors_are_those_of_the_evaluation():
    evaluation = read("metrics/evaluation.json")
    assert row("wrong answers") == f"{evaluation['errors']:,} of {evaluation['equations']:,}"
    assert row("smallest lead") == f"{evaluation['smallest_margin']} logits"
    test = evaluation["test"]
    assert row("exact match on") == f"{test['exact_match']:.2%} of {test['equations']:,}".replace(
        "%", " %"
    )


def test_the_parameters_are_those_of_the_training():
    assert row("parameters |") == f"{read('metrics/training.json')['parameters']:,}"


def test_the_seconds_are_those_of_the_benchmark():
    figures = read("benchmarks/results/pipeline.json")
    assert row("the whole pipeline") == f"{figures['seconds']:.0f} s"
    assert figures["lock_and_outputs_unchanged"] is True


def test_the_seeds_are_those_of_the_benchmark():
    figures = read("benchmarks/results/seeds.json")
    assert row("fresh seeds") == f"{figures['exact']} of {len(figures['seeds'])}"


def test_the_four_operations_are_those_of_their_evaluation():
    evaluation = read("four-operations/metrics/evaluation.json")
    training = read("four-operations/metrics/training.json")
    assert row("four operations") == f"{evaluation['errors']:,} of {evaluation['equations']:,}"
    assert row("parameters of the model for") == f"{training['parameters']:,}"


def server_row(name: str, found: dict | None) -> str:
    """A line of the README's table of servers."""
    label = f"`{LABELS[name]}`" if name == "mlflow" else LABELS[name]
    if found is None:  # could not be started; the result says why
        return f"| {label} | not measured | | | |"
    many, one = found["connections_64"], found["connections_1"]
    return (
        f"| {label} | {many['requests_per_second']:,.0f} | {found['throughput_of_constant']:.2f} | "
        f"{many['p99_ms']:.1f} | {one['p50_ms']:.2f} |"
    )


def test_the_servers_are_those_of_the_benchmark():
    """Every row of the table of servers."""
    result = read("benchmarks/results/serving.json")
    lines = README.splitlines()
    for name in LABELS:
        expected = server_row(name, result["servers"].get(name))
        assert expected in lines, expected
    assert all(result["bars_met"].values()), "a bar is not met: say so in the README"
    failed = {
        name: found["connections_64"]["failures"] + found["connections_1"]["failures"]
        for name, found in result["servers"].items()
    }
    assert f"Of the requests {failed.pop('torch')} failed, all of torch eager's" in README
    assert not any(failed.values())


def test_one_core_gives_the_same_bytes_in_the_seconds_that_are_stated():
    figures = read("benchmarks/results/pipeline-one-core.json")
    assert row("training on one core") == f"{figures['stages']['train']:.0f} s"
    assert figures["machine"]["cores"] == 1
    assert figures["lock_and_outputs_unchanged"] is True


def test_the_frontier_is_that_of_its_benchmark():
    found = read("benchmarks/results/frontier.json")
    smallest = min(entry["parameters"] for entry in found["shapes"] if not entry["errors"])
    assert row("smallest exact model") == f"{smallest:,} parameters"
    enough = [
        entry["changes"]["generate"]["train_size"]
        for entry in found["training_sizes"]
        if not entry["errors"]
    ]
    assert row("fewest training equations") == f"{min(enough):,} of 2,000,000"


def test_six_digits_are_those_of_their_benchmark():
    found = read("benchmarks/results/six-digits.json")
    assert row("+ and − over 0-999999") == f"{found['errors']:,} of {found['equations']:,}"


def test_it_is_short():
    assert len(README.splitlines()) < 170


def test_every_make_target_it_names_exists_and_has_a_script():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    documents = [README, (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")]
    for document in documents:
        named = set(re.findall(r"`make ([a-z-]+)", document))
        named |= set(re.findall(r"^make ([a-z-]+)", document, re.MULTILINE))
        assert named <= targets
    for module in re.findall(r"python -m ([a-z_.]+)", makefile):
        if module not in ("dvc", "pip", "pytest"):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file() or (
                ROOT / module.replace(".", "/") / "__main__.py"
            ).is_file(), module


@pytest.mark.parametrize("room", ["arithmetic", "stages", "registry", "serving", "scripts"])
def test_the_tree_names_every_module(room):
    tree = README.partition("## The house")[2].split("```")[1]
    part = re.split(rf"^{room}/ ", tree, flags=re.MULTILINE)[1]
    part = re.split(r"^[a-z-]+/ ", part, flags=re.MULTILINE)[0]
    for path in (ROOT / room).glob("[a-z]*.py"):
        assert re.search(rf"\b{path.stem}\b", part), f"{room}/{path.name} is not in the README"


def test_the_served_operations_stand_in_params():
    """The domain that the README claims is the domain of params.yaml."""
    domain = read("metrics/evaluation.json")["domain"]
    assert domain == {"operations": ["+", "-"], "max_operand": 999}
