"""Kill this process with SIGKILL at a named point; Python imports this file first when it starts.

`benchmarks.kills` puts this folder on PYTHONPATH and the point into KILL_POINT. An audit hook
counts matching events (`open PATH` for writing, `os.rename FROM TO`, or any other by its name).
"""

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
        self.effect, self.target = point["effect"], point["target"]
        self.left, self.is_armed = int(point["nth"]), not point["after"]

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
            self.left -= 1
            if self.left == 0:  # what follows is below 0
                self.kill(str(arguments[0]) if arguments else "")

    def kill(self, path: str) -> None:
        """Leave the file as a kill in the middle of writing does, note the kill, and kill."""
        if self.effect and os.path.exists(path):
            os.truncate(path, os.path.getsize(path) // 2 if self.effect == "half" else 0)
        Path(os.environ["KILL_MARK"]).touch()
        if self.target == "group":
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


if "KILL_POINT" in os.environ:
    point = json.loads(os.environ["KILL_POINT"])
    if point["module"] in sys.orig_argv:
        sys.addaudithook(Killer(point))
