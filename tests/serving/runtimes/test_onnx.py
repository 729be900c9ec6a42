"""The ONNX runtime: every datatype in and out, a signature that must match, and plain sentences about bad files."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from nstarx.errors import InvalidTensor, ModelLoadFailed
from nstarx.spec.model import ModelSpec
from nstarx.tensors import DTYPES, Tensor
from serving.runtimes.onnx import OnnxRuntime, signature_of
from serving.runtimes.onnx_session import CPU, CUDA, TENSORRT, choose_providers, open_session, session_options

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}

Shape = list[int | str]


def spec(inputs: dict[str, tuple[str, list[int]]], outputs: dict[str, tuple[str, list[int]]], **more: Any) -> ModelSpec:
    """A model.yaml in which a tensor is a name with a datatype and a shape."""
    return ModelSpec.model_validate(
        {
            "name": "sample",
            "version": "1.0.0",
            "runtime": "onnx",
            "file": "model.onnx",
            "sha256": "0" * 64,
            "inputs": [{"name": n, "datatype": d, "shape": s} for n, (d, s) in inputs.items()],
            "outputs": [{"name": n, "datatype": d, "shape": s} for n, (d, s) in outputs.items()],
            **more,
        }
    )


def value(name: str, datatype: str, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, ONNX_TYPES[datatype], shape)


def save(file: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], initializers: Any = ()) -> Path:
    graph = helper.make_graph(nodes, "sample", inputs, outputs, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    model.ir_version = 10
    onnx.save(model, file)
    return file


def identity(file: Path, datatypes: list[str], shape: Shape | None = None) -> Path:
    """A file that returns `in_<datatype>` as `out_<datatype>`."""
    free: Shape = ["rows"] if shape is None else shape
    return save(
        file,
        [helper.make_node("Identity", [f"in_{d}"], [f"out_{d}"]) for d in datatypes],
        [value(f"in_{d}", d, free) for d in datatypes],
        [value(f"out_{d}", d, free) for d in datatypes],
    )


def identity_spec(datatypes: list[str], shape: list[int], **more: Any) -> ModelSpec:
    return spec({f"in_{d}": (d, shape) for d in datatypes}, {f"out_{d}": (d, shape) for d in datatypes}, **more)


def loaded(spec: ModelSpec, file: Path) -> OnnxRuntime:
    runtime = OnnxRuntime(spec, file)
    runtime.load()
    return runtime


def refusal(spec: ModelSpec, file: Path) -> str:
    with pytest.raises(ModelLoadFailed) as caught:
        loaded(spec, file)
    return caught.value.sentence


def sample_of(datatype: str) -> Tensor:
    if datatype == "BYTES":
        return np.array([b"", "naïve ☃".encode(), b"a\0b"], dtype=object)
    return np.array([0, 1, 1], dtype=DTYPES[datatype])


@pytest.mark.parametrize("datatype", DTYPES)
def test_each_datatype_comes_back_as_it_went_in(tmp_path: Path, datatype: str) -> None:
    runtime = loaded(identity_spec([datatype], [-1]), identity(tmp_path / "model.onnx", [datatype]))
    sent = sample_of(datatype)
    got = runtime.infer({f"in_{datatype}": sent})[f"out_{datatype}"]
    assert got.dtype == DTYPES[datatype]
    assert got.tolist() == sent.tolist()


def test_all_numeric_datatypes_fit_in_one_model(tmp_path: Path) -> None:
    numeric = [datatype for datatype in DTYPES if datatype != "BYTES"]
    runtime = loaded(identity_spec(numeric, [-1]), identity(tmp_path / "model.onnx", numeric))
    answer = runtime.infer({f"in_{d}": sample_of(d) for d in numeric})
    assert {d: (answer[f"out_{d}"].dtype, answer[f"out_{d}"].tolist()) for d in numeric} == {
        d: (DTYPES[d], sample_of(d).tolist()) for d in numeric
    }


@pytest.mark.parametrize("datatype", ["FP32", "BF16", "BYTES"])
def test_empty_and_many_dimensional_tensors_keep_their_shape(tmp_path: Path, datatype: str) -> None:
    file = identity(tmp_path / "model.onnx", [datatype], ["rows", 2, 3])
    runtime = loaded(identity_spec([datatype], [-1, 2, 3]), file)
    for rows in (0, 2):
        elements = [b"x"] * rows * 6 if datatype == "BYTES" else [1.5] * rows * 6
        sent = np.array(elements, dtype=DTYPES[datatype]).reshape(rows, 2, 3)
        got = runtime.infer({f"in_{datatype}": sent})[f"out_{datatype}"]
        assert got.shape == (rows, 2, 3)
        assert got.tolist() == sent.tolist()


@pytest.mark.parametrize("datatype", ["FP32", "BF16"])
def test_a_view_with_strides_is_read_by_its_elements(tmp_path: Path, datatype: str) -> None:
    runtime = loaded(identity_spec([datatype], [-1]), identity(tmp_path / "model.onnx", [datatype]))
    view = np.arange(6).astype(DTYPES[datatype])[::2]
    assert runtime.infer({f"in_{datatype}": view})[f"out_{datatype}"].tolist() == [0, 2, 4]


def test_an_answer_in_bf16_outlives_the_next_run(tmp_path: Path) -> None:
    runtime = loaded(identity_spec(["BF16"], [-1]), identity(tmp_path / "model.onnx", ["BF16"]))
    first = runtime.infer({"in_BF16": np.full(1000, 1.5, DTYPES["BF16"])})["out_BF16"]
    runtime.infer({"in_BF16": np.full(1000, 2.5, DTYPES["BF16"])})
    assert set(first.tolist()) == {1.5}


def test_text_and_bf16_inputs_fit_in_one_model(tmp_path: Path) -> None:
    file = save(
        tmp_path / "model.onnx",
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT), helper.make_node("Identity", ["s"], ["t"])],
        [value("x", "BF16", ["n"]), value("s", "BYTES", ["n"])],
        [value("y", "FP32", ["n"]), value("t", "BYTES", ["n"])],
    )
    runtime = loaded(
        spec({"x": ("BF16", [-1]), "s": ("BYTES", [-1])}, {"y": ("FP32", [-1]), "t": ("BYTES", [-1])}), file
    )
    answer = runtime.infer({"x": np.array([1.5], DTYPES["BF16"]), "s": np.array([b"ok"], dtype=object)})
    assert (answer["y"].tolist(), answer["t"].tolist()) == ([1.5], [b"ok"])


def test_text_and_bf16_outputs_fit_in_one_model(tmp_path: Path) -> None:
    file = save(
        tmp_path / "model.onnx",
        [
            helper.make_node("Cast", ["x"], [y], to=to)
            for y, to in (("y", TensorProto.BFLOAT16), ("t", TensorProto.STRING))
        ],
        [value("x", "FP32", ["n"])],
        [value("y", "BF16", ["n"]), value("t", "BYTES", ["n"])],
    )
    answer = loaded(spec({"x": ("FP32", [-1])}, {"y": ("BF16", [-1]), "t": ("BYTES", [-1])}), file).infer(
        {"x": np.array([1.5], np.float32)}
    )
    assert (answer["y"].tolist(), answer["t"].tolist()) == ([1.5], [b"1.5"])


def test_text_in_with_bf16_out_is_refused_with_a_way_out(tmp_path: Path) -> None:
    file = identity(tmp_path / "model.onnx", ["BYTES", "BF16"])
    assert "cast the BF16 outputs to FP32" in refusal(identity_spec(["BYTES", "BF16"], [-1]), file)


def test_bytes_that_are_not_text_are_refused_by_input_and_element(tmp_path: Path) -> None:
    runtime = loaded(identity_spec(["BYTES"], [-1]), identity(tmp_path / "model.onnx", ["BYTES"]))
    with pytest.raises(InvalidTensor, match=r"input 'in_BYTES': element 1 is not UTF-8"):
        runtime.infer({"in_BYTES": np.array([b"fine", b"\xff"], dtype=object)})


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> OnnxRuntime:
    file = identity(tmp_path_factory.mktemp("texts") / "model.onnx", ["BYTES"])
    return loaded(identity_spec(["BYTES"], [-1]), file)


@given(elements=st.lists(st.text()))
def test_any_text_comes_back_as_it_went_in(texts: OnnxRuntime, elements: list[str]) -> None:
    sent = np.empty(len(elements), dtype=object)
    sent[:] = [element.encode() for element in elements]
    assert texts.infer({"in_BYTES": sent})["out_BYTES"].tolist() == sent.tolist()


def test_only_declared_outputs_are_returned(tmp_path: Path) -> None:
    file = identity(tmp_path / "model.onnx", ["FP32", "INT64"])
    both = identity_spec(["FP32", "INT64"], [-1])
    runtime = loaded(both.model_copy(update={"outputs": both.outputs[:1]}), file)
    assert list(runtime.infer({f"in_{d}": sample_of(d) for d in ("FP32", "INT64")})) == ["out_FP32"]


def test_an_input_with_a_default_may_be_left_out(tmp_path: Path) -> None:
    file = save(
        tmp_path / "model.onnx",
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [value("x", "FP32", ["n"]), value("factor", "FP32", [1])],
        [value("y", "FP32", ["n"])],
        [helper.make_tensor("factor", TensorProto.FLOAT, [1], [3.0])],
    )
    document = spec({"x": ("FP32", [-1]), "factor": ("FP32", [1])}, {"y": ("FP32", [-1])}).model_dump()
    document["inputs"][1]["optional"] = True
    runtime = loaded(ModelSpec.model_validate(document), file)
    x = np.array([2], np.float32)
    assert runtime.infer({"x": x})["y"].tolist() == [6]
    assert runtime.infer({"x": x, "factor": np.array([5], np.float32)})["y"].tolist() == [10]


def test_a_closed_model_runs_no_more(tmp_path: Path) -> None:
    runtime = loaded(identity_spec(["FP32"], [-1]), identity(tmp_path / "model.onnx", ["FP32"]))
    runtime.close()
    with pytest.raises(RuntimeError, match="not loaded"):
        runtime.infer({"in_FP32": sample_of("FP32")})


@pytest.mark.parametrize(
    ("inputs", "outputs", "sentence"),
    [
        ({"z": ("FP32", [-1, 4])}, {}, "input 'z' of model.yaml is not in the file, which has 'in_FP32'"),
        ({"in_FP32": ("FP64", [-1, 4])}, {}, "input 'in_FP32' is FP32 in the file, FP64 in model.yaml"),
        ({"in_FP32": ("FP32", [-1])}, {}, "input 'in_FP32' has the shape [-1, 4] in the file, [-1] in model.yaml"),
        (
            {"in_FP32": ("FP32", [-1, 5])},
            {},
            "input 'in_FP32' has the shape [-1, 4] in the file, [-1, 5] in model.yaml",
        ),
        ({"in_FP32": ("FP32", [-1, -1])}, {}, "has the shape [-1, 4] in the file, [-1, -1] in model.yaml"),
        ({}, {"z": ("FP32", [-1, 4])}, "output 'z' of model.yaml is not in the file, which has 'out_FP32'"),
        ({}, {"out_FP32": ("INT8", [-1, 4])}, "output 'out_FP32' is FP32 in the file, INT8 in model.yaml"),
        ({}, {"out_FP32": ("FP32", [-1, 3])}, "output 'out_FP32' has the shape [-1, 4] in the file"),
    ],
)
def test_a_signature_that_differs_from_the_file_names_the_tensor(
    tmp_path: Path, inputs: Any, outputs: Any, sentence: str
) -> None:
    file = identity(tmp_path / "model.onnx", ["FP32"], ["rows", 4])
    wrong = spec(inputs or {"in_FP32": ("FP32", [-1, 4])}, outputs or {"out_FP32": ("FP32", [-1, 4])})
    assert sentence in refusal(wrong, file)


@pytest.mark.parametrize(("inputs", "outputs"), [([2, 4], [-1, 4]), ([-1, 4], [-1, -1]), ([-1, 4], [2, 4])])
def test_a_signature_may_narrow_inputs_and_be_vague_or_precise_about_outputs(
    tmp_path: Path, inputs: list[int], outputs: list[int]
) -> None:
    file = identity(tmp_path / "model.onnx", ["FP32"], ["rows", 4])
    runtime = loaded(spec({"in_FP32": ("FP32", inputs)}, {"out_FP32": ("FP32", outputs)}), file)
    assert runtime.infer({"in_FP32": np.ones((2, 4), np.float32)})["out_FP32"].shape == (2, 4)


def test_an_input_that_model_yaml_forgets_is_named(tmp_path: Path) -> None:
    file = identity(tmp_path / "model.onnx", ["FP32", "INT64"])
    assert "the file needs 'in_INT64' too" in refusal(identity_spec(["FP32"], [-1]), file)


def test_an_optional_input_without_a_default_is_refused(tmp_path: Path) -> None:
    document = identity_spec(["FP32"], [-1]).model_dump()
    document["inputs"][0]["optional"] = True
    file = identity(tmp_path / "model.onnx", ["FP32"])
    assert "input 'in_FP32' is optional" in refusal(ModelSpec.model_validate(document), file)


def test_a_missing_an_empty_and_a_foreign_file_say_so(tmp_path: Path) -> None:
    file, wanted = tmp_path / "model.onnx", identity_spec(["FP32"], [-1])
    assert "there is no file" in refusal(wanted, file)
    file.write_bytes(b"")
    assert "model.onnx is empty" in refusal(wanted, file)
    file.write_bytes(b"not a model at all\n" * 50)
    assert "is not an ONNX model, or was cut short" in refusal(wanted, file)


def test_a_file_cut_anywhere_is_refused_in_one_line(tmp_path: Path) -> None:
    file, wanted = identity(tmp_path / "model.onnx", ["FP32"]), identity_spec(["FP32"], [-1])
    content = file.read_bytes()
    for length in range(len(content) - 1):
        file.write_bytes(content[:length])
        sentence = refusal(wanted, file)
        assert "\n" not in sentence
        assert "onnxruntime_src" not in sentence


def test_a_file_from_the_future_says_what_it_needs(tmp_path: Path) -> None:
    file, wanted = identity(tmp_path / "model.onnx", ["FP32"]), identity_spec(["FP32"], [-1])
    model = onnx.load(file)
    model.opset_import[0].version = 99
    onnx.save(model, file)
    assert "it needs Opset 99, and ONNX Runtime" in refusal(wanted, file)
    model.ir_version = 99
    onnx.save(model, file)
    assert "it needs IR version: 99, and ONNX Runtime" in refusal(wanted, file)


def test_a_broken_graph_gives_the_sentence_without_the_stack(tmp_path: Path) -> None:
    file = identity(tmp_path / "model.onnx", ["FP32"])
    model = onnx.load(file)
    model.graph.node[0].op_type = "Nope"
    onnx.save(model, file)
    sentence = refusal(identity_spec(["FP32"], [-1]), file)
    assert sentence.startswith("sample@1.0.0 can't be loaded: model.onnx: ")
    assert "No Op registered for Nope" in sentence
    assert "ONNXRuntimeError" not in sentence
    assert str(tmp_path) not in sentence


def gpu_spec(tensorrt: bool) -> ModelSpec:
    return identity_spec(["FP32"], [-1], resources={"gpu": 0.5}, onnx={"tensorrt": tensorrt})


def test_without_a_gpu_only_the_cpu_is_used() -> None:
    assert choose_providers(identity_spec(["FP32"], [-1]), [TENSORRT, CUDA, CPU]) == [CPU]


@pytest.mark.parametrize(
    ("tensorrt", "available", "chosen"),
    [
        (False, [TENSORRT, CUDA, CPU], [CUDA, CPU]),
        (True, [TENSORRT, CUDA, CPU], [TENSORRT, CUDA, CPU]),
        (True, [CUDA, CPU], [CUDA, CPU]),
    ],
)
def test_a_gpu_is_used_through_the_providers_that_are_there(
    tensorrt: bool, available: list[str], chosen: list[str]
) -> None:
    assert choose_providers(gpu_spec(tensorrt), available) == chosen


def test_a_gpu_that_this_onnx_runtime_cannot_use_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [CPU])
    sentence = refusal(gpu_spec(tensorrt=True), identity(tmp_path / "model.onnx", ["FP32"]))
    assert "install nstarx[gpu]" in sentence


def test_a_gpu_that_does_not_start_is_an_error_instead_of_a_slow_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnTheCpu:
        def get_providers(self) -> list[str]:
            return [CPU]

    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *args, **options: OnTheCpu())
    with pytest.raises(ValueError, match="CUDAExecutionProvider didn't start"):
        open_session(gpu_spec(tensorrt=False), identity(tmp_path / "model.onnx", ["FP32"]))


def test_the_options_of_model_yaml_reach_the_session() -> None:
    options = session_options(
        identity_spec(["FP32"], [-1], onnx={"intra_op_threads": 3, "graph_optimization": "basic"})
    )
    assert options.intra_op_num_threads == 3
    assert options.graph_optimization_level.name == "ORT_ENABLE_BASIC"
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_the_signature_of_a_file_can_be_written_into_a_model_yaml(tmp_path: Path) -> None:
    file = identity(tmp_path / "model.onnx", ["FP32", "BYTES"], ["rows", 4])
    inputs, outputs = signature_of(file)
    expected = identity_spec(["FP32", "BYTES"], [-1, 4])
    assert (inputs, outputs) == (expected.inputs, expected.outputs)


def test_the_signature_of_a_file_that_returns_a_map_says_how_to_export_it(tmp_path: Path) -> None:
    keys = helper.make_node("DictVectorizer", ["m"], ["y"], domain="ai.onnx.ml", string_vocabulary=["a"])
    taken = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    graph = helper.make_graph([keys], "g", [helper.make_value_info("m", taken)], [value("y", "FP32", [1, 1])])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 8
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelLoadFailed, match=r"model.onnx can't be loaded: input 'm' is map.*zipmap off"):
        signature_of(tmp_path / "model.onnx")


def test_the_signature_of_a_broken_file_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadFailed, match=r"model.onnx can't be loaded: there is no file"):
        signature_of(tmp_path / "model.onnx")
