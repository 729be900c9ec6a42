"""A ledger outlives whoever writes it, at any moment of its writing."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.ledger import Entry, Ledger, LedgerUnwritable

pytestmark = pytest.mark.anyio


class Life:
    """Somebody who adds numbers, and remembers them by a ledger."""

    def __init__(self, folder: Path | None, limit: int = 1 << 20) -> None:
        self.numbers: list[int] = []
        self.ledger = Ledger(lambda: self.numbers.copy(), self.restore, limit)
        if folder:
            self.ledger.settle(lambda: folder)

    def restore(self, state: Any, entries: Sequence[Entry]) -> None:
        self.numbers = [*(state or []), *(entry["add"] for entry in entries)]

    def add(self, number: int) -> None:
        self.numbers.append(number)
        self.ledger.append({"add": number})

    async def keep(self, *numbers: int) -> None:
        for number in numbers:
            self.add(number)
        await self.ledger.commit()


def reborn(folder: Path) -> list[int]:
    """What the next life knows."""
    life = Life(folder)
    life.ledger.close()
    return life.numbers


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def has_failed(life: Life) -> bool:
    return life.ledger.failed


def journals(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("journal-*")]


async def test_what_was_committed_is_known_to_the_next_life(tmp_path: Path) -> None:
    life = Life(tmp_path / "state")
    await life.keep(1, 2)
    await life.keep(3)
    life.ledger.close()
    assert reborn(tmp_path / "state") == [1, 2, 3]


async def test_without_a_folder_nothing_is_kept_and_all_is_well(tmp_path: Path) -> None:
    life = Life(None)
    await life.keep(1)
    assert life.numbers == [1]


async def test_an_empty_folder_is_not_made_before_there_is_something_to_keep(tmp_path: Path) -> None:
    life = Life(tmp_path / "state")
    assert not (tmp_path / "state").exists()
    await life.keep(1)
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in files(tmp_path / "state")} == {0o600}


async def test_callers_who_commit_at_once_share_a_write_and_none_returns_before_his_entry_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(tmp_path)
    await life.keep(0)
    synced: list[int] = []
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        synced.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)

    async def keep(number: int) -> None:
        await life.keep(number)
        assert f'{{"add":{number}}}\n' in (tmp_path / "journal-1.jsonl").read_text()

    await asyncio.gather(*(keep(number) for number in range(1, 101)))
    assert len(synced) <= 3


async def test_a_long_journal_becomes_a_state(tmp_path: Path) -> None:
    life = Life(tmp_path, limit=100)
    for number in range(50):
        await life.keep(number)
    [journal] = journals(tmp_path)
    assert journal != "journal-1.jsonl"
    assert (tmp_path / journal).stat().st_size < 200
    life.ledger.close()
    assert reborn(tmp_path) == list(range(50))


async def test_a_line_that_a_crash_cut_short_is_left_out_and_written_over(tmp_path: Path) -> None:
    life = Life(tmp_path)
    await life.keep(1, 2)
    life.ledger.close()
    with (tmp_path / "journal-1.jsonl").open("ab") as journal:
        journal.write(b'{"add":')
    assert reborn(tmp_path) == [1, 2]
    second = Life(tmp_path)
    await second.keep(3)
    second.ledger.close()
    assert reborn(tmp_path) == [1, 2, 3]


async def test_a_crash_between_a_new_state_and_its_journal_counts_nothing_twice(tmp_path: Path) -> None:
    life = Life(tmp_path)
    await life.keep(1, 2)
    old = (tmp_path / "journal-1.jsonl").read_bytes()
    life.ledger._size = 1 << 30
    await life.keep(3)
    (tmp_path / "journal-1.jsonl").write_bytes(old)
    (tmp_path / "journal-2.jsonl").unlink()
    life.ledger.close()
    assert reborn(tmp_path) == [1, 2, 3]


async def test_a_crash_while_a_new_state_is_written_leaves_the_old_one(tmp_path: Path) -> None:
    life = Life(tmp_path)
    await life.keep(1, 2)
    (tmp_path / "state.json.new").write_bytes(b'{"format": 1, "generation": 9, "st')
    life.ledger.close()
    assert reborn(tmp_path) == [1, 2]


async def test_a_state_that_cannot_be_read_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(b"\x00\x00")
    life = Life(tmp_path)
    assert life.numbers == []
    assert (tmp_path / "state.broken").exists()
    await life.keep(1)
    life.ledger.close()
    assert reborn(tmp_path) == [1]


async def test_two_never_write_to_one_folder(tmp_path: Path) -> None:
    first, second = Life(tmp_path), Life(None)
    await first.keep(1)
    with pytest.raises(LedgerUnwritable, match="another coordinator uses it"):
        second.ledger.settle(lambda: tmp_path)
    with pytest.raises(LedgerUnwritable) as refused:
        await second.keep(2)
    assert (refused.value.status, refused.value.code) == (503, "state_unwritable")
    assert second.ledger.failed
    first.ledger.close()
    await second.keep(3)
    assert second.numbers == [1, 2, 3]
    second.ledger.close()
    assert reborn(tmp_path) == [1, 2, 3]


async def test_what_could_not_be_written_is_written_when_that_is_possible_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(tmp_path)
    await life.keep(1)
    write = os.write

    def full(descriptor: int, data: Any) -> int:
        write(descriptor, data[:3])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(LedgerUnwritable, match="No space left on device"):
            await life.keep(2)
    assert has_failed(life)
    await life.keep(3)
    assert not has_failed(life)
    life.ledger.close()
    assert reborn(tmp_path) == [1, 2, 3]


async def test_after_a_sync_that_failed_a_new_state_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(tmp_path)
    await life.keep(1)

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", broken)
        with pytest.raises(LedgerUnwritable, match="Input/output error"):
            await life.keep(2)
    await life.keep(3)
    assert journals(tmp_path) == ["journal-2.jsonl"]
    life.ledger.close()
    assert reborn(tmp_path) == [1, 2, 3]


async def test_nobody_has_to_wait_for_what_is_kept_in_passing(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.add(1)
    life.ledger.keep()
    await life.ledger.commit()
    life.ledger.close()
    assert reborn(tmp_path) == [1]


async def test_a_folder_that_may_not_be_entered_is_said_and_nothing_is_confirmed() -> None:
    def elsewhere() -> Path:
        raise PermissionError("it must belong to this user alone")

    life = Life(None)
    with pytest.raises(LedgerUnwritable, match="can't be kept: it must belong to this user alone; mend that"):
        life.ledger.settle(elsewhere)
    with pytest.raises(LedgerUnwritable, match="belong to this user alone"):
        await life.keep(1)
