"""Where replicas put their Unix sockets: a folder that only this user can enter."""

import errno
import os
import re
import secrets
import socket
from pathlib import Path

import psutil

from cluster.private import private_folder

NAME = re.compile(r"lane-(\d+)-[0-9a-f]+\.sock\Z")


def socket_path() -> str:
    """A new path for a Unix socket. Removes what processes that are gone have left there."""
    folder = private_folder()
    for path in folder.iterdir():
        match = NAME.match(path.name)
        if match and not psutil.pid_exists(int(match[1])) and not _is_listening(path):
            remove(str(path))
    return str(folder / f"lane-{os.getpid()}-{secrets.token_hex(4)}.sock")


def remove(path: str) -> None:
    """Remove a socket's path, if it is still there."""
    Path(path).unlink(missing_ok=True)


def _is_listening(path: Path) -> bool:
    """Whether somebody answers; a process in another container has a number that means nothing here."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) not in (errno.ECONNREFUSED, errno.ENOENT)
