"""Dockerfile and compose files: what must hold without an engine to try them on."""

import re

import pytest
from ruamel.yaml import YAML

from scripts.server_process import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
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


def test_the_image_has_a_private_cache_and_no_root():
    assert f"MODEL_CACHE={CACHE}" in DOCKERFILE
    assert f"install -d -o service -g service -m 0700 {CACHE}" in DOCKERFILE
    assert "\nUSER service\n" in DOCKERFILE
    assert "--require-hashes" in DOCKERFILE
    assert "ORT_DISABLE_TELEMETRY=1" in DOCKERFILE


def test_the_image_holds_only_what_serving_imports():
    copied = re.findall(r"^COPY (?!--from)(\S+)", DOCKERFILE, re.MULTILINE)
    assert copied == ["requirements/serving.lock", "arithmetic/", "registry/", "serving/"]
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    assert {"!arithmetic", "!registry", "!serving", "!requirements", "**/__pycache__"} <= {*allowed}
