"""make clean: delete what tools left and make again by themselves; only says so without YES=1.

Outputs, data, DVC's cache, checkpoints, MLflow's store and the environment stay.
"""

import argparse
import shutil
from pathlib import Path

from arithmetic.errors import reported

CACHES = (".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "dvc_plots")
NOT_OURS = {".venv", ".git", ".dvc", "mlartifacts"}


def leftovers(root: Path) -> list[Path]:
    """Caches of tools and of Python, in the root and in its folders."""
    found = [root / name for name in CACHES if (root / name).is_dir()]
    for folder in sorted(filter(Path.is_dir, root.iterdir())):
        if folder.name not in NOT_OURS and not folder.is_symlink():
            found += sorted(
                path for path in (folder, *folder.rglob("*")) if path.name == "__pycache__"
            )
    return [path for path in found if not path.is_symlink()]


def size(folder: Path) -> int:
    """Bytes in it."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def main() -> None:
    parser = argparse.ArgumentParser(description="Delete caches of tools.")
    parser.add_argument("--yes", action="store_true", help="really delete")
    given = parser.parse_args()
    with reported():
        root = Path.cwd()
        found = leftovers(root)
        for path in found:
            print(f"{path.relative_to(root)}  {size(path) / 1e6:.1f} MB")
            if given.yes:
                shutil.rmtree(path)
        if not found:
            print("there is nothing to delete")
        elif not given.yes:
            print("nothing was deleted; `make clean YES=1` does it")


if __name__ == "__main__":
    main()
