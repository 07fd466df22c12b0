"""Run joblib's tasks on the Ray cluster that RAY_ADDRESS names, or on the cores of this machine.

    make setup-ray && RAY_ADDRESS=HOST:6379 dvc repro evaluate

The nodes need the packages of the lock files and nothing else: the code, the model and the
variables that fix how torch computes go with the job.
"""

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import joblib

import arithmetic
import stages
from arithmetic.errors import UserError

RESTARTS = 3  # of a lost worker, which computes its shard again
CONNECT_SECONDS = 5.0
HINT = "look at `ray status`, then run `dvc repro` again, or unset RAY_ADDRESS"


@contextmanager
def connect(address: str, working_dir: Path) -> Iterator[None]:
    """Use the Ray cluster at `address`, whose tasks find this code and the files of `working_dir`.

    Raises:
        UserError: Ray is not installed or does not answer, or workers were lost too often.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f"RAY_ADDRESS is {address!r}, but Ray is not installed",
            "run `make setup-ray`, or unset RAY_ADDRESS",
        ) from error
    _check_address(address)
    job = {
        "working_dir": str(working_dir),
        "py_modules": [str(Path(package.__path__[0])) for package in (arithmetic, stages)],
        "env_vars": stages.REPRODUCIBLE_ENVIRONMENT,
    }
    try:
        ray.init(address, runtime_env=job, logging_level=logging.ERROR, log_to_driver=False)
        yield
    except ray.exceptions.RayError as error:
        message = str(error).splitlines()[0]
        raise UserError(f"the Ray cluster at {address} failed: {message}", HINT) from error
    finally:
        ray.shutdown()


@contextmanager
def open_workers(directory: Path) -> Iterator[tuple[joblib.Parallel, Path]]:
    """Yield the workers, and where they find the files of `directory`; errors as of `connect`."""
    if not (address := os.environ.get("RAY_ADDRESS")):
        yield joblib.Parallel(n_jobs=joblib.cpu_count(), return_as="generator"), directory
        return
    # Else each end of a pool is printed as a failure that will be retried.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "__ray_terminate__")
    options = {
        "num_cpus": 0.5,  # a worker for each CPU, and room to restart; with 0 none is spread
        "max_restarts": RESTARTS,
        "max_task_retries": -1,  # while the worker is restarted
        "scheduling_strategy": "SPREAD",
    }
    with connect(address, directory):
        import ray
        from ray.util.joblib import register_ray
        from ray.util.multiprocessing.pool import ResultThread

        register_ray()
        count = int(ray.cluster_resources()["CPU"])
        try:
            with joblib.parallel_config("ray", ray_remote_args=options):
                # joblib runs a single job in this process.
                yield joblib.Parallel(n_jobs=count), Path() if count > 1 else directory
        finally:
            # One that outlived `ray.shutdown` would connect to the cluster again.
            for thread in threading.enumerate():
                if isinstance(thread, ResultThread):
                    thread.join(CONNECT_SECONDS)


def _check_address(address: str) -> None:
    # Ray itself tries for more than eight minutes.
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        except OSError as error:
            message = f"no Ray cluster answers at RAY_ADDRESS={address}: {error}"
            raise UserError(message, HINT) from error
