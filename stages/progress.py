"""Show a stage's progress: a bar in a terminal, plain lines elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_SECONDS = 15.0  # between plain lines without a status


class ProgressBar:
    """Count the steps of one task; use as a context manager.

    In a terminal a bar with the latest status is redrawn; otherwise, and with NO_COLOR, each status
    is printed as a line, and the count and its rate where there was no line for some time.
    """

    def __init__(self, name: str, total: int, done: int = 0, is_quiet: bool = False):
        self.name, self.total, self.done, self.is_quiet = name, total, done, is_quiet
        self._started, self._printed, self._first = time.monotonic(), time.monotonic(), done
        console = Console(quiet=is_quiet)
        self.is_live = console.is_terminal and not console.no_color
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,}/{task.total:,}  {task.fields[status]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not self.is_live,
            redirect_stdout=False,
        )
        self._task = self._progress.add_task(name, total=total, completed=done, status="", rate="")

    def __enter__(self) -> "ProgressBar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, steps: int = 1, status: str = "") -> None:
        """Count some steps and show `status`, where it is given."""
        self.done += steps
        now = time.monotonic()
        rate = f"{(self.done - self._first) / max(now - self._started, 1e-9):,.0f}/s"
        fields = {"status": status, "rate": rate} if status else {"rate": rate}
        self._progress.update(self._task, advance=steps, **fields)  # type: ignore[arg-type]
        is_due = now - self._printed > PLAIN_SECONDS and self.done < self.total
        if (status or is_due) and not self.is_live and not self.is_quiet:
            count = f"{self.done:,} of {self.total:,}, {rate}"
            print(f"{self.name}: {status or count}", flush=True)
            self._printed = now
