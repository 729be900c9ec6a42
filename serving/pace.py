"""Where runs take place: short ones on the event loop, long ones in a worker thread."""

SHORT_NS = 500_000
"""A run up to this long may hold the loop: handing it to a thread and back would take about as long."""
LONG_NS = 50_000_000
"""One run this long is enough to leave the loop."""
LEAVE, RETURN = 16, 32
"""So many more long runs than short ones leave the loop, so many more short ones come back: on a busy machine a single
run may take long for no fault of the model's."""


class Pace:
    """Remembers just enough of the last runs to answer `on_loop` for the next one.

    The first runs leave the loop: before any was measured, one could hold it for as long as it likes.
    """

    def __init__(self) -> None:
        self.on_loop = False
        self._score = 0
        """How far the runs at the present place speak against it."""

    def note(self, nanoseconds: int) -> None:
        """A run took this long."""
        if (nanoseconds > SHORT_NS) != self.on_loop:
            if self._score:
                self._score -= 1
            return
        self._score += 1
        if self._score >= (LEAVE if self.on_loop else RETURN) or (self.on_loop and nanoseconds > LONG_NS):
            self.on_loop = not self.on_loop
            self._score = 0
