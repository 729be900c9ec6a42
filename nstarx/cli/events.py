"""How events are printed: a line for people, or a line of JSON for machines."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
"""What could break a line, or move the cursor: parts of an event may come from requests."""
KIND_WIDTH, SUBJECT_WIDTH = 20, 24


def line(event: Mapping[str, Any]) -> str:
    """Time in UTC, kind, what it is about, and the sentence; always one line."""
    kind, subject = _clean(event["kind"]), _clean(_subject(event))
    return f"{_time(event['time'])}  {kind:<{KIND_WIDTH}}  {subject:<{SUBJECT_WIDTH}}  {_clean(event['sentence'])}"


def json_line(event: Mapping[str, Any]) -> str:
    """The whole event, in ASCII."""
    return json.dumps(event, separators=(",", ":"))


def _subject(event: Mapping[str, Any]) -> str:
    """Version and route where both are known and the version's name doesn't say the route."""
    route, version = event.get("route"), event.get("version")
    if route and version and version.partition("@")[0] != route:
        return f"{version} ({route})"
    return version or route or event.get("gateway") or "-"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "milliseconds").replace("+00:00", "Z")


def _clean(text: str) -> str:
    return UNPRINTABLE.sub(" ", text)
