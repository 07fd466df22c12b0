"""Dockerfile and compose files: what must hold and `test_image` does not try."""

import re

import pytest
from ruamel.yaml import YAML

from scripts.server_process import ROOT

CACHE = "/var/cache/arithmetic-lm"


def services(path: str) -> dict:
    return YAML(typ="safe").load(ROOT / path)["services"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("compose.yaml", "service"),
        ("deploy/candidate.yaml", "candidate"),
        ("deploy/team/compose.yaml", "service-1"),
        ("deploy/team/compose.yaml", "service-2"),
    ],
)
def test_a_service_keeps_its_models_in_a_volume_and_waits_for_nothing(path, name):
    service = services(path)[name]
    assert any(
        re.fullmatch(f"[a-z-]*models(-[12])?:{CACHE}", volume) for volume in service["volumes"]
    )
    assert service["tmpfs"] == ["/tmp"]
    assert service["read_only"]
    assert "depends_on" not in service


def test_the_image_keeps_its_models_private_and_onnxruntime_silent():
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"install -d -o service -g service -m 0700 {CACHE}" in dockerfile
    assert "ORT_DISABLE_TELEMETRY=1" in dockerfile
    assert "--require-hashes" in dockerfile
