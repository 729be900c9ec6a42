"""What tests of the batcher and its parts live between."""

import threading
from collections.abc import Iterator

import pytest

from tests.serving.doubles import Clock, Listener


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def lane() -> Listener:
    return Listener()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shut() -> Iterator[threading.Event]:
    """A door that runs in threads wait at; open at last, whatever becomes of the test."""
    door = threading.Event()
    yield door
    door.set()
