"""Releases of the sample model `flaky` to tell stories with: versions that break and are mended while they serve."""

import shutil
from pathlib import Path

from tests.in_process import MODELS

STABLE, CANDIDATE = "flaky@1.0.0", "flaky@1.1.0"
PATH = "/v2/models/flaky/infer"


def flaky_releases(folder: Path, *versions: str) -> Path:
    """A model repository with `flaky` in each of these versions, all the same."""
    for version in versions or ("1.0.0", "1.1.0"):
        copy = folder / "flaky" / version
        shutil.copytree(MODELS / "flaky" / "1.0.0", copy)
        description = (copy / "model.yaml").read_text()
        (copy / "model.yaml").write_text(description.replace("version: 1.0.0", f"version: {version}"))
    return folder
