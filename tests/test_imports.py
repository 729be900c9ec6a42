"""Imports go one way, and what users import does without the server side."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {
    "nstarx": {"judging", "cluster", "router", "serving", "ray"},
    "judging": {"cluster", "router", "serving", "ray"},
    "cluster": {"router", "serving"},
    "router": {"serving"},
    "serving": {"router"},
}
"""Package to what none of its modules may import, also inside functions."""
SERVER_SIDE = ("httptools", "onnxruntime", "prometheus_client", "psutil", "ray", "starlette", "uvicorn", "uvloop")
"""What only the extra `server` installs."""


def imported(file: Path) -> set[str]:
    """Top-level names that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: imports are absolute here"
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {str(file.relative_to(ROOT)): names for file in files if (names := imported(file) & FORBIDDEN[package])}
    assert not wrong


@pytest.mark.parametrize("package", FORBIDDEN)
def test_the_product_imports_neither_tests_nor_benchmarks(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        assert not imported(file) & {"tests", "benchmarks", "models"}, file


@pytest.mark.parametrize("module", ["nstarx", "nstarx.client", "nstarx.cli"])
def test_what_users_import_does_without_the_server_side(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {SERVER_SIDE!r} if name in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not ran.stdout.split()
