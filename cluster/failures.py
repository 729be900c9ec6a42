"""What Ray Serve says when an application fails, pages with stacks, as one sentence for people."""

import re
from collections.abc import Iterable

from nstarx.errors import NStarXError

SHORT = 300
"""Characters of somebody else's words in a sentence."""
COMMAND_FAILED = "SubprocessCalledProcessError"
"""What Ray raises when a command fails while it makes the environment for `python.requirements`."""
OUTPUT = re.compile(r"^Last \d+ lines of stdout:\n", re.MULTILINE)
FRAME = re.compile(r'^\s+File "', re.MULTILINE)
NO_REASON = "no reason given"
AT_WORK = ("Collecting ", "Processing ")
"""How pip's line about the package that it turns to begins."""
REFUSED = "ERROR: "
NOT_THE_REASON = ("ERROR: Ignored the following", "ERROR: ResolutionImpossible")
"""What pip calls an error, too, before or after the line that says what is wrong."""
COMMAND_OF_PIP_FAILED = "\u00d7 "
"""How pip says that a build failed; what the build said last stands before the line below."""
END_OF_OUTPUT = "[end of output]"
REQUIREMENTS_FILE = re.compile(r" \(from (?:-r \S+ \(line \d+\)|line \d+ of \S+)\)")
"""Where pip read a requirement: a file of Ray's, which nobody has written."""
MEND = "mend python.requirements in its model.yaml, or see to it that every node of the cluster can get the package"


def reason(message: str) -> str:
    """Why an application failed, from Ray Serve's message: the last thing that was raised, in its own words."""
    if COMMAND_FAILED in message:
        return _environment(message)
    if "Failed to install runtime_env within the timeout" in message:
        return f"its python.requirements were not installed in time; {MEND}"
    if "Changing the ray version is not allowed" in message:
        return "its python.requirements would replace Ray itself by another version; leave ray out of them"
    return _last_raised(message)


def _environment(message: str) -> str:
    command, *rest = OUTPUT.split(message, maxsplit=1)
    lines = _lines(REQUIREMENTS_FILE.sub("", rest[0]) if rest else "")
    if "'pip', 'install'" not in command:
        said = lines[-1] if lines else "Ray doesn't say why"
        return f"Ray can't make the environment for its python.requirements: {_short(said)}; see to it, then repeat"
    return f"pip can't install its python.requirements{_package(lines)}: {_said(lines)}{_unreachable(lines)}; {MEND}"


def _package(lines: list[str]) -> str:
    """The package that pip was at, which its last word may leave out."""
    at_work = [line.partition(" ")[2].partition(" (from ")[0] for line in lines if line.startswith(AT_WORK)]
    return f", at {_short(at_work[-1])}" if at_work else ""


def _said(lines: list[str]) -> str:
    """What pip said is wrong: its first error, else the build that failed, else its last word."""
    for line in lines:
        if line.startswith(REFUSED) and not line.startswith(NOT_THE_REASON):
            return _short(line.removeprefix(REFUSED).rstrip("."))
    for line in lines:
        if line.startswith(COMMAND_OF_PIP_FAILED):
            return _short(line.removeprefix(COMMAND_OF_PIP_FAILED).rstrip(".")) + _last_of_build(lines)
    return _short(lines[-1]) if lines else "it doesn't say why"


def _last_of_build(lines: list[str]) -> str:
    end = lines.index(END_OF_OUTPUT) if END_OF_OUTPUT in lines else 0
    return f": {_short(lines[end - 1])}" if end else ""


def _unreachable(lines: list[str]) -> str:
    return " (its package index can't be reached)" if any("connection broken by" in line for line in lines) else ""


def _last_raised(message: str) -> str:
    kinds = {cls.__name__ for cls in _subclasses(NStarXError)}
    lines = _lines(message)
    for line in reversed(lines):
        kind, _, sentence = line.partition(": ")
        if kind.rpartition(".")[2] in kinds:
            return sentence
    return _below_stack(message) or next(
        (line for line in reversed(lines) if "Error" in line), (lines or [NO_REASON])[-1]
    )


def _below_stack(message: str) -> str:
    """The line below the last frame of a stack: what was raised, whatever it is called."""
    _, *frames = FRAME.split(message)
    below = frames[-1].splitlines()[1:] if frames else []
    return next((line for line in below if line.strip() and not line[0].isspace()), "")


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _short(words: str) -> str:
    """Without its middle when it is long: the name of a package comes first, the newest of its versions last."""
    half = SHORT // 2
    return words if len(words) <= SHORT else f"{words[:half]} … {words[-half:]}"


def _subclasses(cls: type[NStarXError]) -> Iterable[type[NStarXError]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
