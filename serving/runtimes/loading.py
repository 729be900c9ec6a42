"""From a version's name to a runtime that is ready: verify the file, load it, check its golden examples."""

import asyncio
from pathlib import Path

from nstarx.repository import Repository
from nstarx.spec.model import ModelSpec
from nstarx.spec.version import VersionRef
from serving.golden import check_golden
from serving.runtimes.python import PythonRuntime
from serving.runtimes.runtime import Runtime


async def load_runtime(repository: Repository, ref: VersionRef) -> tuple[ModelSpec, Runtime]:
    """A version checked, loaded and warmed up; await it on the event loop that will run the model.

    Raises ModelNotFound, VersionNotFound, InvalidConfiguration or ModelLoadFailed; then nothing stays loaded.
    """
    spec, runtime = await asyncio.to_thread(open_runtime, repository, ref)
    try:
        await check_golden(spec, runtime)
    except BaseException:
        runtime.close()
        raise
    return spec, runtime


def open_runtime(repository: Repository, ref: VersionRef) -> tuple[ModelSpec, Runtime]:
    """A version checked and loaded, its golden examples not yet run. Raises as `load_runtime` does."""
    repository.verify(ref)
    spec = repository.spec(ref)
    runtime = runtime_for(spec, repository.file(ref))
    runtime.load()
    return spec, runtime


def runtime_for(spec: ModelSpec, file: Path) -> Runtime:
    """The runtime that model.yaml names, not yet loaded."""
    if spec.runtime == "onnx":
        # Imported here, because a replica of a Python model never needs its 20 MiB.
        from serving.runtimes.onnx import OnnxRuntime

        return OnnxRuntime(spec, file)
    return PythonRuntime(spec, file)
