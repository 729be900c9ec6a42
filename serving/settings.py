"""What can be changed about a replica while it serves."""

from collections.abc import Mapping
from typing import Any

from nstarx.errors import InvalidConfiguration
from nstarx.spec.model import Batching, ModelSpec
from nstarx.spec.record import parse
from serving.batcher import Batcher
from serving.runtimes.runtime import Runtime

BATCHING = "batching"


def apply_settings(
    spec: ModelSpec, batcher: Batcher, runtime: Runtime, settings: Mapping[str, Any], before: Mapping[str, Any]
) -> None:
    """Take live settings: those of the model itself, and under `batching` batching limits over those of model.yaml.

    The model is told when its own differ from those `before`. Raises InvalidConfiguration that names the wrong setting,
    and changes nothing then.
    """
    batching = _batching(spec, settings.get(BATCHING, {}))
    if differ(own := _own(settings), _own(before)):
        runtime.reconfigure(own)
    batcher.configure(batching)


def differ(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    """Whether two settings are not the same; to Python alone, 1 and true are equal."""
    return repr(left) != repr(right)


def _own(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != BATCHING}


def _batching(spec: ModelSpec, given: Any) -> Batching:
    source = f"settings of {spec.ref}: {BATCHING}"
    if not isinstance(given, Mapping):
        raise InvalidConfiguration(f"{source}: must be a mapping, like {{max_batch_size: 8}}")
    batching = parse(Batching, {**spec.batching.model_dump(), **given}, source)
    if given.get("max_batch_size", 1) > 1 and not spec.batchable:
        raise InvalidConfiguration(
            f"{source}.max_batch_size: this version was loaded without batching; set it in model.yaml, "
            "for inputs and outputs whose first dimension is -1"
        )
    return batching
