"""The Python runtime: a class in the user's model.py."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from nstarx.errors import InvalidConfiguration, ModelLoadFailed, NStarXError
from nstarx.spec.model import ModelSpec
from nstarx.tensors import Tensors
from serving.runtimes.python_code import UserCode
from serving.runtimes.python_outputs import Outputs
from serving.runtimes.runtime import Runtime

Mode = Literal["sync", "async", "stream"]


class PythonRuntime(Runtime):
    """Runs a class with `infer(inputs)`, and where it has them `reconfigure(settings)`, `load()` and `close()`.

    A version starts as: import, construct, `reconfigure` with the settings of model.yaml, `load`. How `infer` is
    written decides the mode: a function is sync, a coroutine function async, a generator or async generator streams.
    """

    def __init__(self, spec: ModelSpec, file: Path) -> None:
        self._spec = spec
        self._file = file
        self._code = UserCode(spec.ref, file)
        self._outputs = Outputs(spec)
        self._model: Any = None

    def load(self) -> None:
        try:
            with self._code.neighbours():
                self._model = self._start()
        except NStarXError:
            raise
        except (Exception, SystemExit) as error:  # a user's code may raise, or exit
            raise self._failed(self._code.explain(error)) from error
        self.mode = _mode_of(self._model.infer)

    def infer(self, inputs: Tensors) -> Tensors:
        return self._outputs.conform(self._model.infer(inputs))

    async def infer_async(self, inputs: Tensors) -> Tensors:
        return self._outputs.conform(await self._model.infer(inputs))

    async def infer_stream(self, inputs: Tensors) -> AsyncIterator[Tensors]:
        async with aclosing(_parts(self._model.infer(inputs))) as parts:
            async for part in parts:
                yield self._outputs.conform(part)

    def reconfigure(self, settings: Mapping[str, Any]) -> None:
        """Raises InvalidConfiguration when the model refuses; a model that raises should have changed nothing."""
        if not hasattr(self._model, "reconfigure"):
            return super().reconfigure(settings)
        try:
            self._model.reconfigure(dict(settings))
        except NStarXError:
            raise
        except Exception as error:  # whatever the model says is its reason
            raise InvalidConfiguration(f"{self._spec.ref} refuses the settings: {error}") from error

    def close(self) -> None:
        model, self._model = self._model, None
        self._code.forget()
        if hasattr(model, "close"):
            model.close()

    def _start(self) -> Any:
        if not self._file.is_file():
            raise self._failed(f"there is no file {self._file}")
        model = self._find_class(self._code.run())()
        self._check_methods(model)
        if self._spec.settings:
            model.reconfigure(dict(self._spec.settings))
        if hasattr(model, "load"):
            model.load()
        return model

    def _find_class(self, module: ModuleType) -> Callable[[], Any]:
        name = self._spec.python.class_name
        found = getattr(module, name, None)
        if inspect.isclass(found):
            return found
        own = [n for n, v in vars(module).items() if inspect.isclass(v) and v.__module__ == module.__name__]
        raise self._failed(
            f"{self._file.name} has no class '{name}'; "
            + (f"name one of its classes ({', '.join(own)}) under python.class_name" if own else "it has no classes")
        )

    def _check_methods(self, model: Any) -> None:
        owner = f"class '{type(model).__name__}' of {self._file.name}"
        if not callable(getattr(model, "infer", None)):
            raise self._failed(f"{owner} has no method 'infer'; define infer(self, inputs)")
        if self._spec.settings and not hasattr(model, "reconfigure"):
            raise self._failed(f"model.yaml gives settings, but {owner} has no method 'reconfigure'")
        for name in ("load", "reconfigure", "close"):
            if inspect.iscoroutinefunction(getattr(model, name, None)):
                raise self._failed(f"'{name}' of {owner} is a coroutine function; only 'infer' may be one")

    def _failed(self, reason: str) -> ModelLoadFailed:
        return ModelLoadFailed(str(self._spec.ref), reason)


def _mode_of(infer: Callable[..., Any]) -> Mode:
    if inspect.isgeneratorfunction(infer) or inspect.isasyncgenfunction(infer):
        return "stream"
    return "async" if inspect.iscoroutinefunction(infer) else "sync"


def _parts(run: Any) -> AsyncGenerator[Any, None]:
    """What a generator of either kind yields."""
    if inspect.isgenerator(run):
        return _stepped(run)
    parts: AsyncGenerator[Any, None] = run
    return parts


async def _stepped(run: Generator[Any, Any, Any]) -> AsyncGenerator[Any, None]:
    """A generator stepped in one thread of its own, for models that keep state by thread."""
    loop, end = asyncio.get_running_loop(), object()
    thread = ThreadPoolExecutor(1, thread_name_prefix="stream")
    try:
        while (part := await loop.run_in_executor(thread, next, run, end)) is not end:
            yield part
    finally:
        # Queued behind a step that is still under way, so that the loop need not wait for it.
        thread.submit(run.close)
        thread.shutdown(wait=False)
