"""Dies at a named point. Python runs this first in every process below `make bench-kills`, because
the folder stands first on PYTHONPATH.

An audit hook sees what the process does: files opened and renamed, databases connected, and
thousands of smaller events between two statements of a transaction. KILL_POINT says in which
module, at which event and at how many of them `kill -9` strikes, and KILL_MARK names a file that
then tells of it; KILL_COUNT names one that gets how many events there were.
"""

import json
import os
import re
import signal
import sys

WRITING = os.O_WRONLY | os.O_RDWR | os.O_APPEND


def install(point: dict[str, str], count_into: str | None) -> None:
    """Watch this process for `point`: module, after, event, nth, effect, group."""
    after, event = re.compile(point["after"]), re.compile(point["event"])
    nth = int(point["nth"])
    state = {"begun": not point["after"], "seen": 0}

    def hook(name: str, arguments: tuple[object, ...]) -> None:
        if name == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & WRITING:
                return
            text = f"open {path!s}"
        elif name == "os.rename":
            text = f"rename {arguments[0]!s} {arguments[1]!s}"
        else:
            text = name
        if not state["begun"]:
            state["begun"] = bool(after.search(text))
        elif event.search(text):
            state["seen"] += 1
            if state["seen"] == nth:
                strike(arguments)

    def strike(arguments: tuple[object, ...]) -> None:
        state["begun"] = False
        path = str(arguments[0])
        # What a process leaves behind that is killed in the middle of writing this file.
        if point["effect"] == "half":
            os.truncate(path, os.path.getsize(path) // 2)
        elif point["effect"] == "empty" and os.path.exists(path):
            os.truncate(path, 0)
        with open(os.environ["KILL_MARK"], "w", encoding="utf-8"):
            pass  # struck: what comes now is no failure of its own
        if point["group"]:
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    if count_into:
        import atexit

        def tell() -> None:
            seen = state["seen"]
            with open(count_into, "w", encoding="utf-8") as file:
                file.write(str(seen))

        atexit.register(tell)


if "KILL_POINT" in os.environ:
    wanted = json.loads(os.environ["KILL_POINT"])
    if wanted["module"] in sys.orig_argv:
        install(wanted, os.environ.get("KILL_COUNT"))
