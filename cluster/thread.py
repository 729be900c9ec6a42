"""A thread with an event loop of its own, so that what runs there shares it with nobody."""

import asyncio
import gc
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")


class LoopThread:
    """Runs uvloop until stopped. The process may end without waiting for it."""

    def __init__(self, name: str) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def settle(self) -> None:
        """What has been loaded by now stays: garbage collection need not look at it again.

        A full collection stops every thread, for 50 ms and more when a process has loaded Ray.
        """
        gc.collect()
        gc.freeze()

    def stop(self) -> None:
        """End the loop, and the thread with it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
