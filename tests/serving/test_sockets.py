"""Sockets: in a folder of this user alone, and what the dead left there is cleared away."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from serving.sockets import NAME, remove, socket_path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where sockets go, instead of the folder that replicas of this machine may be using."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"nstarx-{os.getuid()}"


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that is gone."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return gone.pid


def leave(path: Path) -> Path:
    """A socket on which nobody listens any more."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    return path


def test_every_path_is_new_and_in_a_folder_that_only_this_user_can_enter(folder: Path) -> None:
    paths = {socket_path() for _ in range(5)}
    assert len(paths) == 5
    assert {Path(path).parent for path in paths} == {folder}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(NAME.match(Path(path).name) for path in paths)


def test_sockets_of_the_dead_are_removed_and_everything_else_stays(folder: Path, dead: int) -> None:
    socket_path()
    stale = leave(folder / f"lane-{dead}-00c0ffee.sock")
    own = leave(Path(socket_path()))
    others = [folder / f"lane-{dead}-00c0ffee.sock.bak", folder / "notes", folder / f"xlane-{dead}-00.sock"]
    for path in others:
        path.touch()
    socket_path()
    assert not stale.exists()
    assert own.exists()
    assert all(path.exists() for path in others)


def test_socket_that_somebody_listens_on_stays_whatever_its_number_means_here(folder: Path, dead: int) -> None:
    socket_path()
    path = folder / f"lane-{dead}-00c0ffee.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        for _ in range(3):
            socket_path()
        assert path.exists()


def test_folder_that_others_can_enter_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(PermissionError, match="must belong to this user alone"):
        socket_path()


def test_folder_of_somebody_else_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(mode=0o700)
    stranger = os.getuid() + 1
    folder.rename(folder.with_name(f"nstarx-{stranger}"))
    monkeypatch.setattr(os, "getuid", lambda: stranger)
    with pytest.raises(PermissionError, match=f"nstarx-{stranger} must belong to this user alone"):
        socket_path()


def test_link_to_a_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="must belong to this user alone"):
        socket_path()


def test_file_in_the_folders_place_is_an_error(folder: Path) -> None:
    folder.touch()
    with pytest.raises(OSError, match=folder.name):
        socket_path()


def test_removing_what_is_gone_is_fine() -> None:
    path = socket_path()
    leave(Path(path))
    remove(path)
    remove(path)
    assert not Path(path).exists()
