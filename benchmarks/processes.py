"""What a server costs: CPU time and memory of its processes, read from /proc."""

import contextlib
import os
import re
from collections.abc import Iterable

import psutil

TICK = os.sysconf("SC_CLK_TCK")
METHOD = re.compile(r"\.[a-z_]\w*$")
"""What Ray adds to the title of an actor while it runs a method; not the end of a name like `iris-1.0.0`."""


def pin(cpus: int) -> list[int]:
    """Keep this process, and all it starts from now on, on the first `cpus` CPUs it may use; return them."""
    chosen = sorted(os.sched_getaffinity(0))[:cpus]
    os.sched_setaffinity(0, chosen)
    return chosen


def prefer(pids: Iterable[int]) -> None:
    """Let all threads of these processes run before those of anybody else (SCHED_RR). Raises PermissionError.

    Processes that they start, and threads that come later, run as usual.
    """
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setscheduler(int(thread), os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))


def tree(root: psutil.Process) -> list[psutil.Process]:
    """A process and all its descendants, the root first; nothing once the root has gone."""
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process so far; 0 when it has gone."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            after_name = stat.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    user, system = after_name[11], after_name[12]
    return (int(user) + int(system)) / TICK


def total_cpu_seconds(pids: Iterable[int]) -> float:
    return sum(cpu_seconds(pid) for pid in pids)


def pss_mb(pid: int) -> float:
    """Proportional set size in MB (10^6 bytes): a page shared by n processes counts one n-th in each."""
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        kib = next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    return kib * 1024 / 1e6


def title(process: psutil.Process) -> str:
    """What to call a process: the title it set (`ray::ServeReplica:iris:Iris`), or else the name of its executable.

    The method that an actor runs at the moment is left out. Empty when the process has gone.
    """
    try:
        first = (process.cmdline() or [process.name()])[0]
    except psutil.NoSuchProcess:
        return ""
    return METHOD.sub("", first) if first.startswith("ray::") else first.rpartition("/")[2]


def end(processes: Iterable[psutil.Process], patience_s: float = 5) -> None:
    """Terminate, wait, then kill what is left of these processes."""
    left = [process for process in processes if process.is_running()]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(left, timeout=patience_s)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
