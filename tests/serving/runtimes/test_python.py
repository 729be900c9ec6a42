"""The Python runtime: how a user's class is imported, started, run, checked and let go."""

import asyncio
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nstarx.errors import InvalidConfiguration, ModelFailed, ModelLoadFailed, Unsupported
from nstarx.spec.model import ModelSpec
from nstarx.tensors import DTYPES, Tensors
from serving.runtimes.python import PythonRuntime

Load = Callable[..., PythonRuntime]

Y = {"name": "y", "datatype": "FP32", "shape": [-1]}


def spec(**more: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "name": "sample",
            "version": "1.0.0",
            "runtime": "python",
            "file": "model.py",
            "sha256": "0" * 64,
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
            "outputs": [Y],
            **more,
        }
    )


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Writes model.py, dedented, and loads it."""
    runtimes = []

    def write_and_load(source: str, folder: str = "", **more: Any) -> PythonRuntime:
        file = tmp_path / folder / "model.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(textwrap.dedent(source))
        runtime = PythonRuntime(spec(**more), file)
        runtimes.append(runtime)
        runtime.load()
        return runtime

    yield write_and_load
    for runtime in runtimes:
        runtime.close()


@pytest.fixture
def refusal(load: Load) -> Callable[..., str]:
    """The sentence with which loading a model.py fails."""

    def caught(source: str, **more: Any) -> str:
        before = set(sys.modules)
        with pytest.raises(ModelLoadFailed) as error:
            load(source, **more)
        assert set(sys.modules) == before
        return error.value.sentence

    return caught


def x(*values: float) -> Tensors:
    return {"x": np.array(values, np.float32)}


def answering(expression: str) -> str:
    """A model.py whose answer is an expression."""
    return f"import numpy as np\nclass Model:\n    def infer(self, inputs):\n        return {expression}\n"


# ---- starting


def test_a_model_starts_with_its_settings_and_then_loads(load: Load) -> None:
    runtime = load(
        """
        class Model:
            def reconfigure(self, settings): self.factor = settings["factor"]
            def load(self): self.doubled = self.factor * 2
            def infer(self, inputs): return {"y": inputs["x"] * self.doubled}
        """,
        settings={"factor": 3},
    )
    assert runtime.mode == "sync"
    assert runtime.infer(x(1, 2))["y"].tolist() == [6, 12]


def test_the_class_that_model_yaml_names_is_used(load: Load) -> None:
    source = answering("{'y': inputs['x']}").replace("Model", "Doubler")
    assert load(source, python={"class_name": "Doubler"}).infer(x(1))["y"].tolist() == [1]


def test_close_reaches_the_model_and_forgets_its_module(load: Load) -> None:
    before = set(sys.modules)
    runtime = load("closed = []\nclass Model:\n def infer(self, i): pass\n def close(self): closed.append(1)\n")
    (name,) = set(sys.modules) - before
    module = sys.modules[name]
    runtime.close()
    assert module.closed == [1]
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("def broken(:\n", "model.py, line 1: invalid syntax"),
        (
            "import nowhere_to_be_found\n",
            "model.py, line 1: the package 'nowhere_to_be_found' is not installed; list it",
        ),
        ("from .beside import x\n", "model.py, line 1: there is no module '.beside' beside model.py"),
        ("\nraise RuntimeError('boom')\n", "model.py, line 2: RuntimeError: boom"),
        ("import sys\nsys.exit(3)\n", "model.py, line 2: SystemExit: 3"),
        (
            "class Other: ...\n",
            "model.py has no class 'Model'; name one of its classes (Other) under python.class_name",
        ),
        ("Model = 1\n", "model.py has no class 'Model'; it has no classes"),
        ("class Model: ...\n", "class 'Model' of model.py has no method 'infer'"),
        ("class Model:\n def __init__(self): 1 / 0\n", "model.py, line 2: ZeroDivisionError: division by zero"),
        ("class Model:\n def infer(self, i): ...\n def load(self): 1 / 0\n", "model.py, line 3: ZeroDivisionError"),
        (
            "class Model:\n def infer(self, i): ...\n async def load(self): ...\n",
            "'load' of class 'Model' of model.py is a",
        ),
    ],
)
def test_a_model_that_cannot_start_says_what_and_where(refusal: Callable[..., str], source: str, sentence: str) -> None:
    said = refusal(source)
    assert said.startswith("sample@1.0.0 can't be loaded: ")
    assert sentence in said


def test_a_missing_package_points_to_the_requirements(refusal: Callable[..., str]) -> None:
    assert "python.requirements in model.yaml" in refusal("import nowhere_to_be_found\n")


def test_settings_for_a_model_that_takes_none_are_refused(refusal: Callable[..., str]) -> None:
    said = refusal(answering("{}"), settings={"factor": 1})
    assert "has no method 'reconfigure'" in said


def test_first_settings_that_the_model_refuses_stop_the_start(refusal: Callable[..., str]) -> None:
    source = "class Model:\n def infer(self, i): ...\n def reconfigure(self, s): raise ValueError('factor: too big')\n"
    assert "line 3: ValueError: factor: too big" in refusal(source, settings={"factor": 9})


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed, match="there is no file"):
        PythonRuntime(spec(), tmp_path / "model.py").load()


# ---- modules beside model.py

NEIGHBOUR = """
    import features
    from . import more
    class Model:
        def load(self):
            import late
            self.late = late.VALUE
        def infer(self, inputs):
            from .features import VALUE
            return {"y": [features.VALUE, more.VALUE, self.late, VALUE]}
"""


def test_two_versions_in_one_process_each_get_the_modules_beside_them(load: Load, tmp_path: Path) -> None:
    before, path = set(sys.modules), list(sys.path)
    runtimes = []
    for number, folder in enumerate(("first", "second"), 1):
        (tmp_path / folder).mkdir()
        for module in ("features", "more", "late"):
            (tmp_path / folder / f"{module}.py").write_text(f"VALUE = {number}")
        runtimes.append(load(NEIGHBOUR, folder))
    assert [runtime.infer(x())["y"].tolist() for runtime in runtimes] == [[1] * 4, [2] * 4]
    assert sys.path == path
    for runtime in runtimes:
        runtime.close()
    assert set(sys.modules) == before


def test_a_changed_model_py_is_read_again_and_leaves_no_cache_behind(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert load(answering("{'y': [1.0]}")).infer(x())["y"].tolist() == [1]
    assert load(answering("{'y': [2.0]}")).infer(x())["y"].tolist() == [2]
    assert [path.name for path in tmp_path.iterdir()] == ["model.py"]


def test_a_model_found_by_a_relative_path_finds_its_neighbours_from_anywhere(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("features", "more", "late"):
        (tmp_path / f"{module}.py").write_text("VALUE = 1")
    load(NEIGHBOUR).close()
    monkeypatch.chdir(tmp_path)
    runtime = PythonRuntime(spec(), Path("model.py"))
    runtime.load()
    monkeypatch.chdir("/")
    assert runtime.infer(x())["y"].tolist() == [1] * 4
    runtime.close()


# ---- the three modes


@pytest.mark.anyio
async def test_a_coroutine_function_makes_an_async_model(load: Load) -> None:
    runtime = load(
        """
        import asyncio
        class Model:
            async def infer(self, inputs):
                await asyncio.sleep(0)
                return {"y": inputs["x"] + 1}
        """
    )
    assert runtime.mode == "async"
    assert (await runtime.infer_async(x(1)))["y"].tolist() == [2]


@pytest.mark.anyio
@pytest.mark.parametrize("keyword", ["", "async "])
async def test_generators_of_both_kinds_stream(load: Load, keyword: str) -> None:
    runtime = load(
        f"""
        class Model:
            {keyword}def infer(self, inputs):
                for value in inputs["x"]:
                    yield {{"y": [float(value)]}}
        """
    )
    assert runtime.mode == "stream"
    assert [part["y"].tolist() async for part in runtime.infer_stream(x(1, 2, 3))] == [[1], [2], [3]]


@pytest.mark.anyio
async def test_a_generator_runs_and_is_closed_in_one_thread_beside_the_event_loop(load: Load) -> None:
    runtime = load(
        """
        import threading
        class Model:
            threads = set()
            closed = threading.Event()
            def infer(self, inputs):
                try:
                    while True:
                        self.threads.add(threading.get_native_id())
                        yield {"y": [1.0]}
                finally:
                    self.threads.add(threading.get_native_id())
                    self.closed.set()
        """
    )
    stream = runtime.infer_stream(x())
    for _ in range(5):
        await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    model = runtime._model
    assert await asyncio.to_thread(model.closed.wait, 5)
    assert len(model.threads) == 1
    assert model.threads != {threading.get_native_id()}


@pytest.mark.anyio
@pytest.mark.parametrize("keyword", ["", "async "])
async def test_a_stream_that_is_left_early_is_closed(load: Load, keyword: str) -> None:
    runtime = load(
        f"""
        import threading
        class Model:
            closed = threading.Event()
            {keyword}def infer(self, inputs):
                try:
                    while True:
                        yield {{"y": [1.0]}}
                finally:
                    self.closed.set()
        """
    )
    stream = runtime.infer_stream(x())
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert await asyncio.to_thread(runtime._model.closed.wait, 5)


@pytest.mark.anyio
@pytest.mark.parametrize("keyword", ["", "async "])
async def test_an_error_in_a_stream_comes_after_the_parts_before_it(load: Load, keyword: str) -> None:
    runtime = load(
        f"""
        class Model:
            {keyword}def infer(self, inputs):
                yield {{"y": [1.0]}}
                raise KeyError("lost")
        """
    )
    stream = runtime.infer_stream(x())
    assert (await anext(stream))["y"].tolist() == [1]
    with pytest.raises(KeyError, match="lost"):
        await anext(stream)


def test_an_error_of_the_model_passes_through_untouched(load: Load) -> None:
    with pytest.raises(ZeroDivisionError):
        load(answering("1 / 0")).infer(x())


# ---- what it returns


@pytest.mark.parametrize(
    ("datatype", "expression", "expected"),
    [
        ("FP32", "[1, 2.5]", [1, 2.5]),
        ("FP32", "(1, 2)", [1, 2]),
        ("FP32", "7", [7]),
        ("BOOL", "[True, False]", [True, False]),
        ("UINT8", "[0, 255]", [0, 255]),
        ("UINT64", "[1, 2**64 - 1]", [1, 2**64 - 1]),
        ("INT64", "[-2**63]", [-(2**63)]),
        ("INT64", "[np.int64(3), 4]", [3, 4]),
        ("FP16", "[0.5]", [0.5]),
        ("BF16", "[0.5]", [0.5]),
        ("FP32", "[]", []),
        ("BYTES", "[]", []),
        ("BYTES", "'é'", ["é".encode()]),
        ("BYTES", "['é', b'\\xff\\x00']", ["é".encode(), b"\xff\x00"]),
        ("BYTES", "np.array(['a', 'bcd'])", [b"a", b"bcd"]),
        ("BYTES", "np.array([b'a', b'bcd'])", [b"a", b"bcd"]),
        ("BYTES", "np.array(['a', b'b'], dtype=object)", [b"a", b"b"]),
        ("BYTES", "np.array(['a'], dtype=np.dtypes.StringDType())", [b"a"]),
        ("FP32", "np.array([1.5], '>f4')", [1.5]),
    ],
)
def test_plain_values_become_arrays_of_the_declared_datatype(
    load: Load, datatype: str, expression: str, expected: list[Any]
) -> None:
    outputs = [{"name": "y", "datatype": datatype, "shape": [-1]}]
    got = load(answering(f"{{'y': {expression}}}"), outputs=outputs).infer(x())["y"]
    assert (got.dtype, got.tolist()) == (DTYPES[datatype], expected)


def test_an_array_that_fits_is_passed_on_as_it_is(load: Load) -> None:
    inputs = x(1, 2)
    assert load(answering("{'y': inputs['x']}")).infer(inputs)["y"] is inputs["x"]


@pytest.mark.parametrize(
    ("outputs", "expression", "sentence"),
    [
        ([Y], "None", "infer returned nothing, expected a dict"),
        ([Y], "[1.0]", "infer returned a list, expected a dict"),
        ([Y], "{}", "output 'y' is missing"),
        ([Y], "{'y': [1.0], 'z': [1.0]}", "infer returned 'z'; outputs are 'y'"),
        ([Y], "{'y': np.array([1.0])}", "output 'y' is FP64, expected FP32"),
        ([Y], "{'y': np.array([1j])}", "output 'y' is complex128, expected FP32"),
        ([Y], "{'y': np.ones((2, 2), np.float32)}", "output 'y' has the shape [2, 2], expected [-1]"),
        ([Y], "{'y': ['a']}", "output 'y': expected FP32: ['a'] is not FP32"),
        ([Y], "{'y': None}", "output 'y': expected FP32: None is not FP32"),
        ([Y], "{'y': [[1], [2, 3]]}", "output 'y': expected FP32: "),
        ([Y | {"datatype": "INT64"}], "{'y': [1.5]}", "expected INT64: [1.5] loses its value as INT64"),
        ([Y | {"datatype": "INT64"}], "{'y': [float('nan')]}", "output 'y': expected INT64: "),
        ([Y | {"datatype": "UINT8"}], "{'y': [256]}", "output 'y': expected UINT8: "),
        ([Y | {"datatype": "UINT8"}], "{'y': [np.int64(-1)]}", "[np.int64(-1)] loses its value as UINT8"),
        ([Y | {"datatype": "BOOL"}], "{'y': [2]}", "[2] loses its value as BOOL"),
        ([Y | {"datatype": "BYTES"}], "{'y': [1]}", "expected BYTES: 1 is neither text nor bytes"),
        ([Y | {"datatype": "BYTES"}], "{'y': np.array([1, 'a'], dtype=object)}", "1 is neither text nor bytes"),
        ([Y | {"shape": [-1, 3]}], "{'y': [[1.0, 2.0]]}", "output 'y' has the shape [1, 2], expected [-1, 3]"),
    ],
)
def test_an_answer_that_does_not_fit_names_the_output_and_what_was_expected(
    load: Load, outputs: list[Any], expression: str, sentence: str
) -> None:
    with pytest.raises(ModelFailed) as caught:
        load(answering(expression), outputs=outputs).infer(x())
    assert caught.value.sentence.startswith("sample@1.0.0 failed: ")
    assert sentence in caught.value.sentence


def test_an_optional_output_may_be_missing(load: Load) -> None:
    outputs = [Y, {"name": "z", "datatype": "FP32", "shape": [-1], "optional": True}]
    assert list(load(answering("{'y': [1.0]}"), outputs=outputs).infer(x())) == ["y"]


@pytest.mark.anyio
async def test_the_answers_of_async_and_stream_models_are_checked_too(load: Load) -> None:
    with pytest.raises(ModelFailed, match="nothing"):
        await load("class Model:\n async def infer(self, i): ...\n").infer_async(x())
    with pytest.raises(ModelFailed, match="nothing"):
        await anext(load("class Model:\n def infer(self, i): yield\n").infer_stream(x()))


# ---- live settings


def test_new_settings_reach_the_model(load: Load) -> None:
    runtime = load(
        """
        class Model:
            factor = 1
            def reconfigure(self, settings): self.factor = settings["factor"]
            def infer(self, inputs): return {"y": inputs["x"] * self.factor}
        """
    )
    runtime.reconfigure({"factor": 5})
    assert runtime.infer(x(1))["y"].tolist() == [5]


def test_settings_that_the_model_refuses_are_the_callers_mistake(load: Load) -> None:
    source = "class Model:\n def infer(self, i): ...\n def reconfigure(self, s): raise ValueError('factor: too big')\n"
    with pytest.raises(InvalidConfiguration, match=r"sample@1.0.0 refuses the settings: factor: too big"):
        load(source).reconfigure({"factor": 9})


def test_a_model_without_settings_refuses_them(load: Load) -> None:
    with pytest.raises(Unsupported):
        load(answering("{}")).reconfigure({"factor": 1})
