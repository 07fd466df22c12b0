"""docs/operations.md names every setting and every metric of following, checking and trying."""

import re
from pathlib import Path

import pytest

from serving.following import FollowingSettings
from serving.live import Live
from serving.metrics import Metrics
from serving.settings import Settings

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "operations.md").read_text("utf-8")


@pytest.mark.parametrize("field", FollowingSettings.model_fields)
def test_every_setting_is_documented(field: str) -> None:
    assert field.upper() in TEXT


def test_every_metric_is_documented_and_every_documented_one_exists(tmp_path: Path) -> None:
    plain = {family.name for family in Metrics().registry.collect()}
    metrics = Metrics()
    tried = Settings(
        mlflow_tracking_uri="http://127.0.0.1:1",
        model_cache=tmp_path,
        model_uri_candidate="models:/arithmetic-lm@Candidate",
    )
    Live(tried, None, metrics)
    ours = {family.name for family in metrics.registry.collect()} - plain
    assert ours
    named = {name.removesuffix("_total") for name in re.findall(r"`(arithmetic_\w+)`", TEXT)}
    assert named == ours


def test_defaults_are_those_of_the_code() -> None:
    fields = FollowingSettings.model_fields
    for name in (
        "watch_seconds", "registry_timeout_seconds", "error_rate_limit", "error_rate_minimum"
    ):  # fmt: skip
        assert re.search(rf"`{name.upper()}` \({fields[name].default:g}[;)]", TEXT), name
    for name in ("check_limit", "hard_cases_limit"):
        assert f"`{name.upper()}` ({fields[name].default:,})" in TEXT, name
