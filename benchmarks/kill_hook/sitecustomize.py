"""Kill this process with SIGKILL at a named point; Python imports this file first when it starts.

`benchmarks.kills` puts this folder on PYTHONPATH and the point into KILL_POINT. An audit hook
counts matching events (`open PATH` for writing, `os.rename FROM TO`, or any other by its name).
"""

import atexit
import json
import os
import re
import signal
import sys
from pathlib import Path

WRITING = os.O_WRONLY | os.O_RDWR | os.O_APPEND


class Killer:
    """Count the events of a point, and kill at the one with the number `nth`."""

    def __init__(self, point: dict[str, str]):
        self.event, self.after = re.compile(point["event"]), re.compile(point["after"])
        self.nth, self.point = int(point["nth"]), point
        self.is_armed, self.count = not point["after"], 0

    def __call__(self, name: str, arguments: tuple[object, ...]) -> None:
        """Look at one audit event."""
        text = name
        if name == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not flags & WRITING:
                return
            text = f"open {arguments[0]!s}"
        elif name == "os.rename":
            text = f"os.rename {arguments[0]!s} {arguments[1]!s}"
        if not self.is_armed:
            self.is_armed = bool(self.after.search(text))
        elif self.event.search(text):
            self.count += 1
            if self.count == self.nth:
                self.kill(str(arguments[0]) if arguments else "")

    def kill(self, path: str) -> None:
        """Leave the file as a kill in the middle of writing does, note the kill, and kill."""
        self.is_armed, self.after = False, re.compile("(?!)")  # what follows is not counted
        if self.point["effect"] and os.path.exists(path):
            half = os.path.getsize(path) // 2 if self.point["effect"] == "half" else 0
            os.truncate(path, half)
        Path(os.environ["KILL_MARK"]).touch()
        if self.point["target"] == "group":
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


if "KILL_POINT" in os.environ:
    point = json.loads(os.environ["KILL_POINT"])
    if point["module"] in sys.orig_argv:
        killer = Killer(point)
        sys.addaudithook(killer)
        if "KILL_COUNT" in os.environ:
            count_file = Path(os.environ["KILL_COUNT"])
            atexit.register(lambda: count_file.write_text(str(killer.count)))
