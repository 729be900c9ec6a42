"""Where replicas put their Unix sockets: a folder that only this user can enter."""

import os
import re
import secrets
import tempfile
from pathlib import Path

NAME = re.compile(r"lane-(\d+)-[0-9a-f]+\.sock\Z")


def socket_path() -> str:
    """A new path for a Unix socket. Removes what processes that are gone have left there."""
    folder = Path(tempfile.gettempdir()) / f"nstarx-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        raise PermissionError(f"{folder} must belong to this user alone; remove it, or set TMPDIR to another place")
    for path in folder.iterdir():
        match = NAME.match(path.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            path.unlink(missing_ok=True)
    return str(folder / f"lane-{os.getpid()}-{secrets.token_hex(4)}.sock")


def remove(path: str) -> None:
    """Remove a socket's path, if it is still there."""
    Path(path).unlink(missing_ok=True)
