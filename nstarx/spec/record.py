"""Records: strict, immutable pieces of configuration, and the one way from a document to a record."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from nstarx.errors import InvalidConfiguration


class Record(BaseModel):
    """A piece of configuration: unknown keys are errors, values are not coerced, nothing changes after parsing."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


R = TypeVar("R", bound=BaseModel)


def parse(record: type[R], document: Any, source: str) -> R:
    """Build a record from a parsed document. Raises InvalidConfiguration that names `source` and each wrong field."""
    try:
        return record.model_validate(document)
    except ValidationError as error:
        raise InvalidConfiguration(f"{source}: {_sentences(error)}") from None


def read_yaml(path: Path) -> Any:
    """The document in a YAML file, duplicate keys refused. Raises InvalidConfiguration that names the file."""
    try:
        return parse_yaml(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(f"{path}: can't be read: {error}") from None


def parse_yaml(text: str, source: str) -> Any:
    """The document in a YAML text. Raises InvalidConfiguration with the line where it went wrong."""
    try:
        return yaml.load(text, _StrictLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise InvalidConfiguration(f"{source}: not valid YAML: {_problem(error)}") from None


def _problem(error: Exception) -> str:
    """What is wrong, and where."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return str(error)
    mark = error.problem_mark
    context = f"{error.context}, " if error.context else ""
    return f"{context}{error.problem}, in line {mark.line + 1}, column {mark.column + 1}"


def _sentences(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'document'}: {_advice(e)}" for e in error.errors())


def _advice(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key; check its spelling"
    if error["type"] == "missing":
        return "is required"
    return str(error["msg"]).removeprefix("Value error, ")


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key given twice is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
