"""The ledger: what has to outlive the coordinator, in a folder of two files.

`state.json` holds a state and its generation, `journal-GENERATION.jsonl` what has happened since, a line each. Lines
are written together and reach the disk before anybody is told so. When the journal is long, a new state takes the place
of both: written beside, then renamed, so that a crash at any moment leaves a whole one. A last line that a crash cut
short was promised to nobody, and is left out.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from nstarx.errors import Unavailable

log = logging.getLogger("nstarx.coordinator")

Entry: TypeAlias = dict[str, Any]
FORMAT = 1
LIMIT = 64 << 20
"""Bytes of a journal after which a new state takes its place."""


class LedgerUnwritable(Unavailable):
    """The state of experiments can't be kept, so nothing that changes it is confirmed."""

    code = "state_unwritable"

    def __init__(self, folder: Path | None, reason: str) -> None:
        super().__init__(
            f"the state of experiments can't be kept{f' in {folder}' if folder else ''}: {reason}; mend that, or set "
            "gateway.state_dir to another folder, then repeat the call: nothing counts twice"
        )


class Ledger:
    """Keeps entries in the order in which they came. Without a folder it keeps nothing, and says that all is well."""

    def __init__(
        self,
        state: Callable[[], Any],
        restore: Callable[[Any, Sequence[Entry]], None],
        limit: int = LIMIT,
    ) -> None:
        """`state` is asked for what all entries up to now have come to. `restore` is told of what is found in the
        folder: the state, None where there is none, and what has happened since."""
        self._state = state
        self._restore = restore
        self._limit = limit
        self._locate: Callable[[], Path] | None = None
        self._folder: Path | None = None
        self._lock: int | None = None
        self._journal: int | None = None
        self._generation = 0
        self._size = 0
        """Of the journal, up to the end of its last whole line."""
        self._buffer: list[Entry] = []
        self._taken = self._kept = 0
        self._writing: asyncio.Task[None] | None = None
        self.failed = False
        """Whether the last attempt to write was in vain."""

    def settle(self, locate: Callable[[], Path]) -> None:
        """What finds the folder, or raises OSError. The first word counts; what is there already is restored. Raises
        LedgerUnwritable when it can't be: it is tried again before anything is written."""
        self._locate = self._locate or locate
        if self._lock is None:
            with self._translated():
                self._folder = self._locate()
                if self._folder.exists():
                    self._open()

    def append(self, entry: Entry) -> None:
        """Something has happened; `commit` keeps it."""
        if self._locate is not None:
            self._buffer.append(entry)
            self._taken += 1

    async def commit(self) -> None:
        """Returns when everything appended up to now is on disk. Raises LedgerUnwritable; it stays to be written."""
        wanted = self._taken
        while self._kept < wanted:
            await asyncio.shield(self._begin())

    def keep(self) -> None:
        """Write what nobody has committed, without waiting for it."""
        if self._buffer:
            self._begin()

    def _begin(self) -> asyncio.Task[None]:
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
            self._writing.add_done_callback(_heard)
        return self._writing

    def close(self) -> None:
        """Let go of the files."""
        for descriptor in (self._journal, self._lock):
            if descriptor is not None:
                os.close(descriptor)
        self._journal = self._lock = None

    # Reading

    def _open(self) -> None:
        """Make the folder this process's own, and restore what is there."""
        assert self._locate is not None
        folder = self._folder = self._locate()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            state, entries = self._read()
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock
        if state is not None or entries:
            self._restore(state, [*entries, *self._buffer])

    def _read(self) -> tuple[Any, list[Entry]]:
        state: Any = None
        path = self._path("state.json")
        if path.exists():
            try:
                document = orjson.loads(path.read_bytes())
                if document["format"] != FORMAT:
                    raise ValueError(f"format {document['format']}")
                self._generation, state = document["generation"], document["state"]
            except (ValueError, KeyError, TypeError) as error:
                aside = path.with_suffix(".broken")
                path.replace(aside)
                log.error("%s can't be read (%s); it is kept as %s", path, error, aside, extra={"action": "state_lost"})
        return state, self._read_journal()

    def _read_journal(self) -> list[Entry]:
        path = self._journal_path()
        if not path.exists():
            return []
        entries = []
        for line in path.read_bytes().split(b"\n"):
            try:
                entries.append(orjson.loads(line))
            except orjson.JSONDecodeError:
                if line:
                    log.warning("%s ends in an unfinished line", path, extra={"action": "journal_cut"})
                break
        return entries

    # Writing

    async def _write(self) -> None:
        """Everything that is waiting, at once."""
        with self._translated():
            if self._lock is None:
                self._open()
            entries, self._buffer = self._buffer, []
            try:
                if self._journal is None or self._size > self._limit:
                    await asyncio.to_thread(self._replace, self._state())
                else:
                    await asyncio.to_thread(self._extend, self._journal, entries)
            except BaseException:
                self._buffer = entries + self._buffer
                raise
            self._kept += len(entries)
        self.failed = False

    def _replace(self, state: Any) -> None:
        """A new state, and an empty journal to go with it."""
        generation = self._generation + 1
        document = {"format": FORMAT, "generation": generation, "state": state}
        draft = self._path("state.json.new")
        with open(draft, "wb", opener=_private) as file:
            file.write(orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS))
            file.flush()
            os.fsync(file.fileno())
        old = self._journal_path()
        draft.replace(self._path("state.json"))
        self._generation = generation
        if self._journal is not None:
            os.close(self._journal)
            self._journal = None
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        self._journal = _private(str(self._journal_path()), flags)
        self._size = 0
        old.unlink(missing_ok=True)
        self._keep_names()

    def _extend(self, journal: int, entries: list[Entry]) -> None:
        lines = memoryview(b"".join(orjson.dumps(entry) + b"\n" for entry in entries))
        try:
            written = 0
            while written < len(lines):
                written += os.write(journal, lines[written:])
        except OSError:
            os.ftruncate(journal, self._size)
            raise
        try:
            os.fsync(journal)
        except OSError:
            # What of it is on disk is not known, and a second fsync would not say: a new state takes its place.
            self._size = self._limit + 1
            raise
        self._size += len(lines)

    def _keep_names(self) -> None:
        """A file's name is kept by its folder."""
        folder = os.open(self._path(""), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _path(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / name

    def _journal_path(self) -> Path:
        return self._path(f"journal-{self._generation}.jsonl")

    @contextlib.contextmanager
    def _translated(self) -> Any:
        try:
            yield
        except BlockingIOError:
            self.failed = True
            raise LedgerUnwritable(self._folder, "another coordinator uses it") from None
        except OSError as error:
            self.failed = True
            raise LedgerUnwritable(self._folder, error.strerror or str(error)) from error


def _private(path: str, flags: int) -> int:
    """Opens a file that is its owner's alone."""
    return os.open(path, flags, 0o600)


def _heard(task: asyncio.Task[None]) -> None:
    """Whoever waited for it may be gone, or nobody did."""
    if not task.cancelled() and (error := task.exception()):
        log.error("%s", error, extra={"action": "state_unwritten"})
