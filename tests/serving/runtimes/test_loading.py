"""Loading a version from a repository: verified, started, held against its golden examples, or not at all."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nstarx.errors import InvalidConfiguration, ModelLoadFailed, VersionNotFound
from nstarx.repository import Repository
from nstarx.spec.version import VersionRef
from serving.runtimes.loading import load_runtime

pytestmark = pytest.mark.anyio

REF = VersionRef("doubler", "1.0.0")
SOURCE = """
import pathlib
class Model:
    def infer(self, inputs): return {"y": inputs["x"] * 2}
    def close(self): pathlib.Path(__file__).with_name("closed").touch()
"""


def publish(root: Path, expected: float) -> Path:
    """Write a version that doubles, with a golden example for 1."""
    folder = root / REF.model / REF.version
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(SOURCE)
    document = {
        "name": REF.model,
        "version": REF.version,
        "runtime": "python",
        "file": "model.py",
        "sha256": hashlib.sha256(SOURCE.encode()).hexdigest(),
        "inputs": [{"name": "x", "datatype": "INT64", "shape": [-1]}],
        "outputs": [{"name": "y", "datatype": "INT64", "shape": [-1]}],
        "golden": [{"inputs": {"x": [1]}, "outputs": {"y": [expected]}}],
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(document))
    return folder


async def test_a_version_that_passes_is_ready_to_run(tmp_path: Path) -> None:
    publish(tmp_path, expected=2)
    spec, runtime = await load_runtime(Repository(tmp_path), REF)
    assert spec.ref == REF
    assert runtime.mode == "sync"


async def test_a_version_that_fails_its_golden_example_is_closed_again(tmp_path: Path) -> None:
    folder = publish(tmp_path, expected=3)
    with pytest.raises(ModelLoadFailed, match=r"output 'y' at \[0\]: expected 3, got 2"):
        await load_runtime(Repository(tmp_path), REF)
    assert (folder / "closed").exists()


async def test_code_that_is_not_what_was_published_is_not_run(tmp_path: Path) -> None:
    folder = publish(tmp_path, expected=2)
    (folder / "model.py").write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n")
    with pytest.raises(InvalidConfiguration, match="sha256"):
        await load_runtime(Repository(tmp_path), REF)
    assert not (folder / "ran").exists()


async def test_an_unknown_version_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    publish(tmp_path, expected=2)
    with pytest.raises(VersionNotFound, match=r"1.0.0"):
        await load_runtime(Repository(tmp_path), VersionRef("doubler", "9.0.0"))


def test_a_python_model_never_imports_onnx_runtime(tmp_path: Path) -> None:
    publish(tmp_path, expected=2)
    script = (
        "import asyncio, pathlib, sys\n"
        "from nstarx.repository import Repository\n"
        "from nstarx.spec.version import VersionRef\n"
        "from serving.runtimes.loading import load_runtime\n"
        "asyncio.run(load_runtime(Repository(pathlib.Path(sys.argv[1])), VersionRef('doubler', '1.0.0')))\n"
        "print('onnxruntime' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
