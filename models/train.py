"""Makes the ONNX samples of this repository: `python models/train.py [folder]`. Needs the extra `nstarx[train]`.

Seeds are fixed: the same packages on the same machine write the same bytes.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from skl2onnx import to_onnx  # type: ignore[import-untyped]
from skl2onnx.common.data_types import FloatTensorType  # type: ignore[import-untyped]
from sklearn.datasets import load_digits, load_iris  # type: ignore[import-untyped]
from sklearn.ensemble import RandomForestClassifier  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from sklearn.neural_network import MLPClassifier  # type: ignore[import-untyped]
from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
from sklearn.preprocessing import MaxAbsScaler  # type: ignore[import-untyped]

SEED = 7
OPSET = 17
"""Old enough for every ONNX Runtime that nstarx supports."""

Floats = NDArray[np.float32]


class Sample(NamedTuple):
    """A classifier to train and what its model.yaml says."""

    name: str
    version: str
    description: str
    classifier: Any
    dataset: Any
    max_batch_size: int
    golden_rows: tuple[int, ...]


def samples() -> list[Sample]:
    perceptron = MLPClassifier((32,), learning_rate_init=0.01, tol=1e-3, n_iter_no_change=5, random_state=SEED)
    forest = RandomForestClassifier(n_estimators=10, max_depth=4, random_state=SEED)
    return [
        Sample(
            name="iris",
            version="1.0.0",
            description="The species of an iris from its sepal and petal, in cm; logistic regression",
            classifier=LogisticRegression(max_iter=1000),
            dataset=load_iris(),
            max_batch_size=128,
            golden_rows=(0, 75, 149),
        ),
        Sample(
            name="iris",
            version="1.1.0",
            description="The species of an iris from its sepal and petal, in cm; random forest",
            classifier=forest,
            dataset=load_iris(),
            max_batch_size=128,
            golden_rows=(0, 75, 149),
        ),
        Sample(
            name="digits",
            version="1.0.0",
            description="The digit on an image of 8 by 8 pixels from 0 to 16, row by row; multilayer perceptron",
            classifier=make_pipeline(MaxAbsScaler(), perceptron),
            dataset=load_digits(),
            max_batch_size=64,
            golden_rows=(0, 3),
        ),
    ]


def write(sample: Sample, root: Path) -> None:
    """Train a sample and write its folder."""
    x = sample.dataset.data.astype(np.float32)
    classifier = sample.classifier.fit(x, sample.dataset.target)
    content = to_bytes(classifier, features=x.shape[1])
    folder = root / sample.name / sample.version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(content)
    document = describe(sample, classifier, x, hashlib.sha256(content).hexdigest())
    (folder / "model.yaml").write_text(yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=110))


def to_bytes(classifier: Any, features: int) -> bytes:
    """The classifier as an ONNX file that returns probabilities as one tensor."""
    x = ("x", FloatTensorType([None, features]))
    model = to_onnx(classifier, initial_types=[x], options={"zipmap": False}, target_opset=OPSET)
    return bytes(model.SerializeToString(deterministic=True))


def describe(sample: Sample, classifier: Any, x: Floats, sha256: str) -> dict[str, Any]:
    """The document of a model.yaml."""
    classes = len(classifier.classes_)
    return {
        "name": sample.name,
        "version": sample.version,
        "description": sample.description,
        "runtime": "onnx",
        "file": "model.onnx",
        "sha256": sha256,
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, x.shape[1]]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, classes]},
        ],
        "batching": {"max_batch_size": sample.max_batch_size},
        "resources": {"cpu": 0.1},
        "golden": [golden_example(classifier, x[list(sample.golden_rows)])],
    }


def golden_example(classifier: Any, x: Floats) -> dict[str, Any]:
    """scikit-learn's own answers, so that the example vouches for the conversion too."""
    return {
        "inputs": {"x": np.round(x.astype(np.float64), 6).tolist()},
        "outputs": {
            "label": classifier.predict(x).tolist(),
            "probabilities": np.round(classifier.predict_proba(x), 6).tolist(),
        },
    }


def main(root: Path) -> None:
    for sample in samples():
        write(sample, root)
        print(f"wrote {root / sample.name / sample.version}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
