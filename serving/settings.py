"""What can be changed about a replica while it serves."""

from collections.abc import Mapping
from typing import Any

from nstarx.spec.model import Batching, ModelSpec
from nstarx.spec.record import parse
from serving.batcher import Batcher
from serving.runtimes.runtime import Runtime

BATCHING = "batching"


def apply_settings(spec: ModelSpec, batcher: Batcher, runtime: Runtime, settings: Mapping[str, Any]) -> None:
    """Take live settings: those of the model itself, and under `batching` batching limits over those of model.yaml.

    Raises InvalidConfiguration that names the wrong setting, and changes nothing then.
    """
    own = {name: value for name, value in settings.items() if name != BATCHING}
    given = settings.get(BATCHING, {})
    wanted = {**spec.batching.model_dump(), **given} if isinstance(given, Mapping) else given
    batching = parse(Batching, wanted, f"settings of {spec.ref}: {BATCHING}")
    if own:
        runtime.reconfigure(own)
    batcher.configure(batching)
