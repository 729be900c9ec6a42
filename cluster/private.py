"""The folder in which one user's clusters keep sockets and notes on this machine."""

import os
import stat
import tempfile
from pathlib import Path


def private_folder() -> Path:
    """A folder that only this user can enter. Raises PermissionError when somebody else was there first."""
    folder = Path(tempfile.gettempdir()) / f"nstarx-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} must belong to this user alone; remove it, or set TMPDIR to another place")
    return folder
