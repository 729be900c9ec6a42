"""Bounded numbers that records of traffic share: shares in per cent, and times in seconds. All are finite."""

from typing import Annotated

from pydantic import Field

Percent = Annotated[float, Field(ge=0, le=100, strict=False)]
"""0 to 100."""
Span = Annotated[float, Field(gt=0, le=86400, strict=False)]
"""Seconds, above 0 and up to a day."""
Delay = Annotated[float, Field(ge=0, le=86400, strict=False)]
"""Seconds, from 0 up to a day."""
