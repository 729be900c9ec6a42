"""What every runtime is: something that loads a model file once and turns named tensors into named tensors."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

from nstarx.errors import Unsupported
from nstarx.tensors import Tensors


class Runtime(ABC):
    """One loaded model version.

    `mode` says which of the three ways to run it is meant: `sync` (`infer`), `async` (`infer_async`), `stream`
    (`infer_stream`). Inputs and outputs are as the version's signature says: names to numpy arrays, the first dimension
    being the batch where the version is batchable. A run that fails raises; the caller translates.
    """

    mode: Literal["sync", "async", "stream"] = "sync"

    @abstractmethod
    def load(self) -> None:
        """Read the file and get ready to run. Raises ModelLoadFailed with a sentence about what is wrong with it."""

    def infer(self, inputs: Tensors) -> Tensors:
        """Run once, on the calling thread."""
        raise NotImplementedError

    async def infer_async(self, inputs: Tensors) -> Tensors:
        """Run once, on the calling event loop."""
        raise NotImplementedError

    def infer_stream(self, inputs: Tensors) -> AsyncIterator[Tensors]:
        """Run once and yield partial results as they come."""
        raise NotImplementedError

    def reconfigure(self, settings: Mapping[str, Any]) -> None:
        """Take new live settings. Raises InvalidConfiguration that names the wrong one, and changes nothing then."""
        if settings:
            raise Unsupported("this model has no live settings; only Python models with a reconfigure method have")

    def close(self) -> None:
        """Let go of what `load` took. Called once, after the last run."""
        return
