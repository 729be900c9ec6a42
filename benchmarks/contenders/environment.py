"""Environments of their own for peers whose packages would quarrel with ours, made on first use."""

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.contenders.contender import ROOT, ContenderUnavailable

FOLDER = ROOT / "benchmarks" / ".venvs"
COMMON = ("numpy>=2,<3", "onnxruntime>=1.21,<2", "orjson>=3.10,<4")


def interpreter(name: str, *requirements: str) -> Path:
    """Python of `benchmarks/.venvs/NAME`, in which the requirements are installed.

    Raises ContenderUnavailable with pip's last line when they can't be.
    """
    python = FOLDER / name / "bin" / "python"
    finished = FOLDER / name / "requirements.txt"
    wanted = "\n".join((*COMMON, *requirements))
    if not finished.exists() or finished.read_text() != wanted:
        print(f"{name}: making benchmarks/.venvs/{name}", flush=True)
        shutil.rmtree(FOLDER / name, ignore_errors=True)
        _run(name, sys.executable, "-m", "venv", str(FOLDER / name))
        _run(name, str(python), "-m", "pip", "install", "--quiet", *COMMON, *requirements)
        finished.write_text(wanted)
    return python


def _run(name: str, *command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise ContenderUnavailable(f"{name} can't be installed: {' '.join(reason)}")
