"""Who brought a cluster up, so that `nstarx down` can end it from another terminal: a file per administration port."""

import os
from pathlib import Path

from cluster.private import private_folder
from nstarx.spec.record import Record


class Up(Record):
    """A cluster that `nstarx up` brought up."""

    pid: int
    """The process that looks after it, and ends it when asked by SIGTERM."""
    ray_address: str | None = None
    """The Ray cluster it joined; None when it started its own."""
    applications: tuple[str, ...] = ()
    """Its Ray Serve applications."""

    def alive(self) -> bool:
        """Whether the process still runs."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return b"nstarx" in Path(f"/proc/{self.pid}/cmdline").read_bytes() if Path("/proc/self").exists() else True


def write(port: int, up: Up) -> None:
    """Remember what is up with its administration on this port."""
    _path(port).write_text(up.model_dump_json())


def read(port: int) -> Up | None:
    """What is up with its administration on this port, as far as is known."""
    try:
        return Up.model_validate_json(_path(port).read_text(), strict=False)
    except (OSError, ValueError):
        return None


def forget(port: int) -> None:
    _path(port).unlink(missing_ok=True)


def _path(port: int) -> Path:
    return private_folder() / f"up-{port}.json"
