"""make hard-cases: equations that services answered wrongly, as the CSV that `generate` reads.

    python -m scripts.hard_cases hard-cases.jsonl [more.jsonl …] [--to hard_cases.csv]

Each equation once, in the order of its first wrong answer, with where it comes from: `version`,
`bundle_sha256`, `time`, `answer`, `source`. The right answer is computed anew. What was in the CSV
before stays, so that it grows from call to call.
"""

import argparse
import csv
import io
import json
import os
import re
from pathlib import Path

from arithmetic.errors import Problem, reported
from arithmetic.grammar import OPERATIONS, Equation, solve

COLUMNS = ("equation", "expected", "answer", "version", "bundle_sha256", "time", "source")
DEFAULT = Path("hard_cases.csv")

Row = dict[str, str]


class UnreadableHardCases(Problem):
    """A file that is not what a service keeps, or not a CSV of this command."""


def collect(sources: list[Path], target: Path) -> tuple[int, int]:
    """Add the sources' equations to `target`; returns how many are new and how many there are.

    Beside each source `<source>.1` is read first, if it is there: the service's older half.

    Raises:
        UnreadableHardCases: a source is missing or damaged, or the target is another CSV.
    """
    rows = {row["equation"]: row for row in earlier(target)}
    before = len(rows)
    for source in sources:
        older = source.with_name(source.name + ".1")
        for path in [older, source] if older.exists() else [source]:
            for row in kept(path):
                rows.setdefault(row["equation"], row)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows.values())
    draft = target.with_name(f"{target.name}.{os.getpid()}.draft")
    try:
        draft.write_text(text.getvalue(), encoding="utf-8")
        os.replace(draft, target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise UnreadableHardCases(
            f"{target} cannot be written ({error.strerror}); name another file by TO="
        ) from error
    return len(rows) - before, len(rows)


def earlier(target: Path) -> list[Row]:
    """What the CSV holds already; of equations written there by hand nothing else is known."""
    if not target.exists():
        return []
    if target.is_dir():
        raise UnreadableHardCases(f"{target} is a folder; name a CSV file by TO=")
    with target.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        names = set(reader.fieldnames or ())
        if "equation" not in names or not names <= set(COLUMNS):
            raise UnreadableHardCases(
                f"{target} has other columns than {', '.join(COLUMNS)}; name another file by TO="
            )
        return [{name: row.get(name) or "" for name in COLUMNS} for row in reader]


def kept(path: Path) -> list[Row]:
    """What a service wrote into one file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableHardCases(
            f"{path} cannot be read ({error}); give FROM= the file that a service keeps "
            "(HARD_CASES, or hard-cases.jsonl in its MODEL_CACHE)"
        ) from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            equation = parse(entry["equation"])
            row = {name: str(entry[name]) for name in COLUMNS if name not in ("expected", "source")}
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # the service was killed while it wrote
                continue
            raise UnreadableHardCases(
                f"line {number} of {path} is not what a service writes ({error!r}); delete it"
            ) from error
        rows.append({**row, "expected": solve(equation), "source": f"{path.name}:{number}"})
    return rows


def parse(text: str) -> Equation:
    """An equation of any grammar; raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,6})([-+*/])([0-9]{1,6})=", text)
    if match is None or int(match[3]) < OPERATIONS[match[2]].smallest_operand_2:
        raise ValueError(f"{text!r} is no equation")
    return Equation(int(match[1]), match[2], int(match[3]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.hard_cases", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("sources", nargs="+", type=Path, help="files that services keep")
    parser.add_argument("--to", type=Path, default=DEFAULT, help=f"the CSV ({DEFAULT})")
    given = parser.parse_args()
    with reported():
        if given.sources == [Path()]:
            raise UnreadableHardCases(
                "say which file: make hard-cases FROM=/path/to/hard-cases.jsonl"
            )
        new, all_of_them = collect(given.sources, given.to)
        print(f"{given.to}: {all_of_them} equations, {new} of them new")
        print("next: `dvc repro` trains with them; commit the CSV with what comes of it")


if __name__ == "__main__":
    main()
