"""Models that exist for a benchmark alone: a few lines of Python, written into a repository of its own."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

ONE_ROW = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
    "batching": {"max_batch_size": 1},
}
"""Of a model that takes a vector and gives one, a request at a time."""


def write_model(folder: Path, source: str, **description: Any) -> None:
    """A Python version at `folder`, which ends in its name and version; `description` is the rest of its model.yaml."""
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(source)
    document = {
        "name": folder.parent.name,
        "version": folder.name,
        "runtime": "python",
        "file": "model.py",
        "sha256": sha256(source.encode()).hexdigest(),
        **description,
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(document))
