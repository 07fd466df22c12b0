"""make serve: the service in the foreground, over a loopback MLflow server where none is named.

PORT (8000), MODEL_URI and MLFLOW_TRACKING_URI come from the environment.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from arithmetic.errors import reported
from registry import store
from scripts.tracking_server import tracking_server, usual_port


def main() -> int:
    root = Path.cwd()
    # Ended from outside, the blocks below must still be left: they end the service and the server.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with reported(), contextlib.ExitStack() as stack:
        uri = store.tracking_uri(root)
        database = store.database_to_serve(root)
        if database is not None:  # the service talks to servers only
            home = store.root(root)
            port = usual_port("127.0.0.1", home)
            uri = stack.enter_context(tracking_server(home, port=port, database=database))
            print(f"serve: MLflow server over {database} on {uri}", flush=True)
        command = [sys.executable, "-m", "serving"]
        process = subprocess.Popen(command, env={**os.environ, "MLFLOW_TRACKING_URI": uri})
        try:
            return process.wait()
        except KeyboardInterrupt:
            return process.wait()  # the terminal has told the service as well
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


if __name__ == "__main__":
    sys.exit(main())
