"""Where runs take place: short ones on the event loop, long ones in a worker thread."""

SHORT_NS = 500_000
"""A run up to this long may hold the loop: handing it to a thread and back would take about as long."""
LONG_NS = 20 * SHORT_NS
"""One run this long is enough to leave the loop."""
STRIKES = 3
"""So many runs in a row above SHORT_NS leave the loop; fewer may be the machine's noise."""
CALM = 64
"""So many runs in a row below SHORT_NS come back."""


class Pace:
    """Remembers just enough of the last runs to answer `on_loop` for the next one."""

    def __init__(self) -> None:
        self.on_loop = True
        self._streak = 0
        """Runs in a row that speak for changing place."""

    def note(self, nanoseconds: int) -> None:
        """A run took this long."""
        if (nanoseconds > SHORT_NS) != self.on_loop:
            self._streak = 0
            return
        self._streak += 1
        if self._streak >= (STRIKES if self.on_loop else CALM) or (self.on_loop and nanoseconds > LONG_NS):
            self.on_loop = not self.on_loop
            self._streak = 0
