"""Figures as people read them."""

from judging.verdict import Figures


def calls(number: int) -> str:
    return "1 call" if number == 1 else f"{number:,} calls"


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def times(ratio: float) -> str:
    return f"{ratio:g} times"


def ms(milliseconds: float) -> str:
    return f"{milliseconds:.3g} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.3g} s"


def failed(figures: Figures) -> str:
    share = f" ({percent(figures.error_rate)})" if figures.calls else ""
    return f"{figures.version} failed {figures.failures:,} of {calls(figures.calls)}{share}"


def among(figures: Figures) -> str:
    """What most of the failures were, when they were of one sort that has a name."""
    for number, sort in ((figures.timeouts, "timeouts"), (figures.invalid, "invalid outputs")):
        if 2 * number > figures.failures:
            return f" ({'all' if number == figures.failures else f'{number:,}'} of these failures were {sort})"
    return ""
