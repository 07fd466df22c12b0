"""The commands of README and docs exist: subcommands, options, targets, modules, files."""

import importlib.util
import re
import shlex
import subprocess
from collections.abc import Iterator

import pytest
from dvc.cli.parser import get_main_parser
from dvc.utils.flatten import flatten
from mlflow.cli import cli as mlflow_cli

from benchmarks.results_file import ROOT
from benchmarks.tutorial import read_lines
from registry.dvc_lock import read_yaml

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def split_commands(line: str) -> Iterator[list[str]]:
    """Yield the words of each command of a line, without variables before it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("|&;"):
            while words and re.match("[A-Z_]+=", words[0]):
                del words[0]
            if words:
                yield words
            words = []
        else:
            words.append(word)


COMMANDS = [
    pytest.param(words, id=f"{page.stem}: {' '.join(words)}")
    for page in PAGES
    for line in read_lines(page)
    for words in split_commands(line)
]
DOCKER = {"build", "compose", "load", "logs", "run"}
SHELL = {".", "cd", "export", "kill", "set", "sleep", "source"}
PROGRAMS = {"curl", "kubectl", "openssl", "ray"}  # not in every environment
CREATED = {"deploy/team/.env"}  # by a command


def check_make(target, *values):
    assert re.search(rf"^{target}:", MAKEFILE, re.M)
    for value in values:
        name, _, content = value.partition("=")
        assert re.search(rf"\b{name}\b", MAKEFILE)
        if target == "experiment" and content != "NAME":
            assert (ROOT / "experiments" / f"{content}.yaml").is_file()


def check_python(option, name, *_):
    assert option == "-c" or (option == "-m" and importlib.util.find_spec(name))


def check_dvc(*arguments):
    arguments = get_main_parser().parse_args(arguments)  # exits on an unknown option
    params = flatten(read_yaml(ROOT / "params.yaml"))
    for setting in getattr(arguments, "set_param", None) or []:
        assert setting.partition("=")[0] in params


def check_mlflow(command, *arguments):
    known = mlflow_cli.get_command(None, command)
    known.make_context(command, list(arguments))  # raises on an unknown option


def check_git(command, *_):
    listed = subprocess.check_output(["git", "--list-cmds=builtins"], text=True)
    assert command in listed.split()


def check_docker(command, *_):
    assert command in DOCKER


CHECKS = {
    "make": check_make,
    "python": check_python,
    "dvc": check_dvc,
    "mlflow": check_mlflow,
    "git": check_git,
    "docker": check_docker,
}


@pytest.mark.parametrize("words", COMMANDS)
def test_command_exists(words):
    program, *arguments = words
    if program in CHECKS:
        CHECKS[program](*arguments)
    else:
        assert program in SHELL | PROGRAMS


@pytest.mark.parametrize("words", COMMANDS)
def test_named_files_of_the_repository_exist(words):
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()}
    for word in words:
        path = word.partition(":")[0]
        is_ours = path.split("/")[0] in folders and "/" in path
        if (path not in CREATED and is_ours) or path in ("compose.yaml", "params.yaml", "dvc.yaml"):
            assert (ROOT / path).exists()


def test_commands_are_found():
    assert len(COMMANDS) > 50
