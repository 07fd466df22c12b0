"""The figures of the docs: drawn from what is committed and registered, the same bytes again."""

import json

import pytest

from benchmarks import figures


@pytest.mark.parametrize("name", figures.FIGURES)
def test_figure_is_the_same_again_and_has_the_ink_of_its_theme(
    pipeline, tmp_path, monkeypatch, name
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{pipeline}/mlflow.db")
    monkeypatch.setattr(figures, "ASSETS", tmp_path)
    first, dark = (figures.draw(name, theme).read_bytes() for theme in ("light", "dark"))
    assert figures.draw(name, "light").read_bytes() == first
    for theme, drawn in (("light", first), ("dark", dark)):
        assert figures.INK[theme].encode() in drawn


def test_versions_figure_shows_the_errors_of_each_version(pipeline, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{pipeline}/mlflow.db")
    monkeypatch.setattr(figures, "ASSETS", tmp_path)
    errors = json.loads((pipeline / "metrics" / "evaluation.json").read_bytes())["errors"]
    text = figures.draw("versions", "light").read_text()
    assert f">{errors}</text>" in text
    assert ">repro-" in text
