"""The processes that share a training run: how they start, meet, and end together.

They are started by torchrun: `torchrun --nproc-per-node 2 -m pipeline.train MODEL`, or, on one machine, `processes: 2`
in params.yaml. The first of them writes the files, reports to MLflow and prints, for all of them.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import psutil
import torch.distributed as dist

from pipeline.lm.distributed import rank, world_size
from pipeline.project.console import UserError

T = TypeVar("T")

PATIENCE = timedelta(minutes=2)  # how long to wait for a silent process
SECONDS_BETWEEN_CHECKS = 1.0
THIS_MACHINE = "127.0.0.1"
CONTINUE = "run the same command to continue from the last checkpoint"


def launched() -> bool:
    """Whether torchrun started this process."""
    return dist.is_torchelastic_launched()


def launch(processes: int, module: str, *arguments: str) -> None:
    """Run a module in a number of processes on this machine, each with its share of the cores.

    Raises UserError if one is killed, and SystemExit if one fails, which has then said why.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    config = LaunchConfig(
        # The address, as many containers and laptops cannot resolve their own host name.
        local_addr=THIS_MACHINE,
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=module,
        rdzv_backend="c10d",
        rdzv_endpoint=f"{THIS_MACHINE}:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", module, *arguments)
    except SignalException:
        sys.exit(130)
    except ChildFailedError as error:
        culprit, failure = error.get_first_failure()
        if failure.exitcode < 0:
            raise UserError(
                f"process {culprit} of {processes} was ended by {failure.signal_name()}: {CONTINUE}"
            ) from None
        sys.exit(failure.exitcode)


@contextmanager
def ending_with_dvc() -> Iterator[None]:
    """End as on SIGTERM when the DVC that runs this stage is killed, as nothing would record the result.

    DVC leaves its stages running when it gets SIGTERM or SIGKILL itself.
    """
    parent = _dvc_process()
    over = threading.Event()

    def watch(parent: psutil.Process) -> None:
        while not over.wait(SECONDS_BETWEEN_CHECKS):
            if not _is_alive(parent):
                os.kill(os.getpid(), signal.SIGTERM)
                return

    if parent:
        threading.Thread(target=watch, args=[parent], name="ending with dvc", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _dvc_process() -> psutil.Process | None:
    """The process that started this stage for DVC, skipping the shell in between; None if DVC did not start it."""
    if "DVC_STAGE" not in os.environ:
        return None
    try:
        parents = psutil.Process().parents()
        return next((parent for parent in parents if parent.cmdline()[-2:-1] != ["-c"]), None)
    except psutil.Error:  # not visible to this process
        return None


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@contextmanager
def process_group() -> Iterator[None]:
    """Meet the other processes if torchrun started this one. All but the first end silently."""
    if not launched():
        yield
        return
    with peer_failures():
        dist.init_process_group(timeout=PATIENCE)
    try:
        with peer_failures():
            yield
    except (UserError, KeyboardInterrupt):
        if rank() == 0:
            raise
        sys.exit(1)
    finally:
        dist.destroy_process_group()


@contextmanager
def peer_failures() -> Iterator[None]:
    """Work with the other processes. Raises UserError if one of them is gone."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise UserError(f"another process of this training has ended: {CONTINUE}") from None


@contextmanager
def fail_together() -> Iterator[None]:
    """A UserError in any process is raised in all of them."""
    fault = None
    try:
        yield
    except UserError as error:
        fault = str(error)
        if world_size() == 1:
            raise
    if world_size() > 1:
        faults: list[str | None] = [None] * world_size()
        dist.all_gather_object(faults, fault)
        for process, fault in enumerate(faults):
            if fault:
                raise UserError(f"{fault} (process {process} of {world_size()})" if process else fault)


def broadcast(value: T) -> T:
    """The first process's value, in all of them."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values)
    return values[0]
