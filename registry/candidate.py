"""candidate: which version services try beside Production.

    python -m registry.candidate 4      sets the alias `Candidate`
    python -m registry.candidate        takes it away: services let go of it at once

There is no gate: a candidate answers copies of questions, or a small share of them
(`CANDIDATE_MODE`), and the service that tries it takes it out when it is too often wrong.
"""

import argparse

from arithmetic.errors import reported
from registry import CANDIDATE, MODEL, store
from registry.versions import get_version, version_number


def set_candidate(version: str | None) -> None:
    """Let the alias name `version`, or nothing.

    Raises:
        VersionNotFound: there is no such version.
        RegistryProblem: it is no number, or the store refuses.
        RegistryUnreachable: no answer from the store.
    """
    if version is not None:
        version = version_number(version)
    with store.opened() as client:
        if version is None:
            client.delete_registered_model_alias(MODEL, CANDIDATE)
        else:
            get_version(client, version)
            client.set_registered_model_alias(MODEL, CANDIDATE, version)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m registry.candidate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("version", nargs="?", help="number of the version to try")
    given = parser.parse_args()
    with reported():
        set_candidate(given.version)
        print(
            f"version {given.version} of {MODEL} is now {CANDIDATE}"
            if given.version
            else f"{MODEL} has no {CANDIDATE} now"
        )


if __name__ == "__main__":
    main()
