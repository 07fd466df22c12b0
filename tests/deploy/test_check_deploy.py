"""`make check-deploy`: passes, fails on a defect, and names the package of a missing tool."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from scripts.server_process import ROOT

TOOLS = {"docker-compose": "docker-compose", "nginx": "nginx", "promtool": "prometheus"}
PATH = f"{os.environ['PATH']}:/usr/sbin"
pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool, path=PATH) for tool in TOOLS) and "CI" not in os.environ,
    reason="docker-compose, nginx or promtool is not installed",
)


def check(root: Path = ROOT, path: str = PATH) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["scripts/check_deploy.sh"],
        cwd=root,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of what is checked."""
    for name in ("deploy", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "compose.yaml", tmp_path)
    return tmp_path


def test_what_is_committed_passes():
    done = check()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("deploy/team/compose.yaml", "restart: unless-stopped", "restarts: unless-stopped"),
        ("deploy/team/site.conf", "proxy_next_upstream error", "proxy_next_upstream errors"),
        ("deploy/team/alerts.yml", "sum by (version)", "sum of (version)"),
    ],
)
def test_a_defect_is_an_error_that_names_the_file(copy, file, old, new):
    path = copy / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    done = check(copy)
    assert done.returncode == 1
    assert Path(file).name in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("missing", TOOLS)
def test_a_missing_tool_is_an_error_that_names_its_package(copy, tmp_path, missing):
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in {"bash", "dirname", "mktemp", "rm", *TOOLS} - {missing}:
        (tools / tool).symlink_to(str(shutil.which(tool, path=PATH)))
    script = copy / "scripts/check_deploy.sh"
    script.write_text(script.read_text().replace('PATH="$PATH:/usr/sbin"\n', ""))
    done = check(copy, str(tools))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"hint: apt-get install {TOOLS[missing]}\n" in done.stderr


def test_both_replicas_trust_the_key_that_is_named(copy):
    team, key = copy / "deploy/team", copy / "trusted.pem"
    subprocess.run([team / "secrets.sh"], check=True, capture_output=True)
    with (team / ".env").open("a") as file:
        file.write(f"COMPOSE_FILE=compose.yaml:signed.yaml\nTRUSTED_KEY={key}\n")
    output = subprocess.check_output(["docker-compose", "config"], cwd=team, text=True)
    services = YAML(typ="safe").load(output)["services"]
    for name in ("service-1", "service-2"):
        assert services[name]["environment"]["TRUSTED_KEY"] == "/etc/trusted.pem"
        mounts = str(services[name]["volumes"])
        assert str(key) in mounts
        assert "/etc/trusted.pem" in mounts
        assert "models-" in mounts
