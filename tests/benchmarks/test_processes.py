import os
import subprocess
import sys
import time

import psutil

from benchmarks import processes


def test_cpu_time_of_this_process_grows_with_work() -> None:
    before = processes.cpu_seconds(os.getpid())
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert 0.05 < processes.cpu_seconds(os.getpid()) - before < 5


def test_cpu_time_of_a_process_that_has_gone_is_nothing() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert processes.total_cpu_seconds([gone.pid]) == 0


def test_proportional_set_size_is_below_resident_set_size() -> None:
    resident = psutil.Process().memory_info().rss / 1e6
    assert 1 < processes.pss_mb(os.getpid()) <= resident * 1.1


def test_tree_has_the_children_until_they_are_ended() -> None:
    child = psutil.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert child.pid in [process.pid for process in processes.tree(psutil.Process())]
    processes.end([child])
    assert child.wait(timeout=5) != 0
    assert processes.tree(child) == []


class Titled(psutil.Process):
    """A process with a command line of our choice."""

    def __init__(self, command: str) -> None:
        super().__init__()
        self.command = command

    def cmdline(self) -> list[str]:
        return [self.command]


def test_title_leaves_out_folder_and_what_a_ray_actor_does_at_the_moment() -> None:
    assert processes.title(Titled("/usr/sbin/haproxy")) == "haproxy"
    assert processes.title(Titled("ray::ProxyActor.receive_asgi_messages")) == "ray::ProxyActor"
    assert processes.title(Titled("ray::ServeReplica:iris:iris-1.0.0.infer")) == "ray::ServeReplica:iris:iris-1.0.0"
    assert processes.title(Titled("ray::ServeReplica:iris:iris-1.0.0")) == "ray::ServeReplica:iris:iris-1.0.0"
