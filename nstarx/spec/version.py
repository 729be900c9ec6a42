"""The name of a model version, `iris@1.2.0`: a model name and a semantic version (semver.org 2.0.0)."""

import re
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator
from semver import Version

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?\Z")


def valid_name(name: str) -> str:
    """A model or route name, safe in a URL path and as a folder name. Raises ValueError with the rule."""
    if not NAME.match(name):
        raise ValueError(
            f"'{name}' is not a valid name; use 1 to 128 letters, digits, '.', '_' or '-', "
            "with a letter or digit first and last"
        )
    return name


def valid_version(version: str) -> str:
    """A semantic version. Raises ValueError with an example."""
    if not Version.is_valid(version):
        raise ValueError(f"'{version}' is not a semantic version; write it like 1.2.0 or 1.2.0-rc.1")
    return version


class VersionRef(NamedTuple):
    """`model@version`; ordered by model, then by semantic precedence."""

    model: str
    version: str

    @classmethod
    def parse(cls, text: str) -> "VersionRef":
        """Raises ValueError with an example when `text` isn't `name@semver`."""
        model, at, version = text.partition("@")
        if not at:
            raise ValueError(f"'{text}' names no version; write it like iris@1.2.0")
        return cls(valid_name(model), valid_version(version))

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"

    # A tuple comes with all four comparisons, which know nothing of semantic precedence: each has to be replaced.

    def __lt__(self, other: tuple[Any, ...]) -> bool:
        return _precedence(self) < _precedence(other)

    def __le__(self, other: tuple[Any, ...]) -> bool:
        return _precedence(self) <= _precedence(other)

    def __gt__(self, other: tuple[Any, ...]) -> bool:
        return _precedence(self) > _precedence(other)

    def __ge__(self, other: tuple[Any, ...]) -> bool:
        return _precedence(self) >= _precedence(other)

    @property
    def is_prerelease(self) -> bool:
        return Version.parse(self.version).prerelease is not None

    @property
    def slug(self) -> str:
        """The version as a Ray Serve application name: `iris-1.2.0`."""
        return f"{self.model}-{self.version}"


def _precedence(ref: tuple[Any, ...]) -> tuple[str, Version]:
    return ref[0], Version.parse(ref[1])


Name = Annotated[str, AfterValidator(valid_name)]
Semver = Annotated[str, BeforeValidator(str), AfterValidator(valid_version)]
Ref = Annotated[str, AfterValidator(lambda text: str(VersionRef.parse(text)))]
"""A field that holds `model@version`, checked, kept as text."""
