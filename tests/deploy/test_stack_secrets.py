"""deploy/team/secrets.sh: random, for this user alone, made once; and no default anywhere."""

import re
import subprocess

from scripts.server_process import ROOT

TEAM = ROOT / "deploy" / "team"


def make(path):
    subprocess.run([TEAM / "secrets.sh", path], check=True, capture_output=True)
    return path.read_text()


def test_secrets_are_random_private_and_made_once(tmp_path):
    first, other = make(tmp_path / "first"), make(tmp_path / "other")
    values = re.findall(r"=([0-9a-f]{40})$", first + other, re.MULTILINE)
    assert len(set(values)) == len(values) == 18
    assert (tmp_path / "first").stat().st_mode & 0o777 == 0o600
    assert make(tmp_path / "first") == first


def test_compose_has_no_default_for_a_secret(tmp_path):
    names = re.findall(r"^(\w+)=[0-9a-f]{40}$", make(tmp_path / "secrets"), re.MULTILINE)
    text = (TEAM / "compose.yaml").read_text()
    for name in names:
        uses = re.findall(rf"\$\{{{name}(.*?)\}}", text)
        assert uses
        assert set(uses) == {":?type make up"}, name


def test_the_secrets_are_not_committed():
    ignored = subprocess.run(
        ["git", "check-ignore", "-q", "deploy/team/.env"], cwd=ROOT, check=False
    )
    assert ignored.returncode == 0
