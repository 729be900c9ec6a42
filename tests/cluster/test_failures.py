"""What people read when an application fails, from what Ray Serve says of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.failures import SHORT, reason

FOLDER = "/tmp/ray/session_1/runtime_resources/pip/2b71ff"
REQUIREMENTS = f"{FOLDER}/ray_runtime_env_internal_pip_requirements.txt"
INDEX = "Looking in indexes: https://pypi.org/simple"
PIP = f"['{FOLDER}/virtualenv/bin/python', '-m', 'pip', 'install', '-r', '{REQUIREMENTS}', '--no-cache-dir']"
CLONE = "['/srv/.venv/bin/python3', '/srv/_clonevirtualenv.py', '/srv/.venv', '/tmp/virtualenv']"


def setup_failed(*output: str, command: str = PIP) -> str:
    """Ray Serve's message when a command fails that makes a replica's environment."""
    head = f"""Failed to update the deployments ['demo-1.0.0'].
The deployment failed to start 2 times in a row. See controller logs for details. Error:
Exception when allocating Replica(id='ba0fnkar'): Failed to set up runtime environment.
[Node 192.0.2.2] Traceback (most recent call last):
  File "/srv/ray/_private/runtime_env/utils.py", line 105, in check_output_cmd
    raise SubprocessCalledProcessError(
ray._private.runtime_env.utils.SubprocessCalledProcessError: Run cmd[9] failed with the following details.
Command '{command}' returned non-zero exit status 1.
"""
    return head + ("Last 50 lines of stdout:\n" + "".join(f"    {line}\n" for line in output) if output else "")


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (["ERROR: nowhere.whl is not a valid wheel filename."], ": nowhere.whl is not a valid wheel filename;"),
        (
            [
                f"Processing /srv/demo-1.0.0-py3-none-any.whl (from -r {REQUIREMENTS} (line 1))",
                "ERROR: Could not install packages due to an OSError: [Errno 2] No such file or directory: "
                "'/srv/demo-1.0.0-py3-none-any.whl'",
            ],
            ", at /srv/demo-1.0.0-py3-none-any.whl: Could not install packages due to an OSError: [Errno 2]",
        ),
        (
            [
                "ERROR: Ignored the following versions that require a different python version: 1.21.2",
                "ERROR: Could not find a version that satisfies the requirement numpy==99 (from versions: 2.3, 2.4)",
                "ERROR: No matching distribution found for numpy==99",
            ],
            ": Could not find a version that satisfies the requirement numpy==99 (from versions: 2.3, 2.4);",
        ),
        ([f"ERROR: Invalid requirement: 'a b' (from line 1 of {REQUIREMENTS})"], ": Invalid requirement: 'a b';"),
        (
            [
                f"Collecting rich==13.0.0 (from -r {REQUIREMENTS} (line 1))",
                "ERROR: Cannot install rich==13.0.0 and rich==13.1.0 because these conflict.",
                "The conflict is caused by:",
                "ERROR: ResolutionImpossible: for help visit https://pip.pypa.io/",
            ],
            ", at rich==13.0.0: Cannot install rich==13.0.0 and rich==13.1.0 because these conflict;",
        ),
        (
            [
                f"Processing /srv/source (from -r {REQUIREMENTS} (line 1))",
                "error: subprocess-exited-with-error",
                "\u00d7 Getting requirements to build wheel did not run successfully.",
                "\u2502 exit code: 1",
                "\u2570\u2500> [1 lines of output]",
                "no compiler here",
                "[end of output]",
                "note: This error originates from a subprocess.",
            ],
            ", at /srv/source: Getting requirements to build wheel did not run successfully: no compiler here;",
        ),
        (["something new"], ": something new;"),
    ],
)
def test_requirement_that_pip_refuses_is_named_with_pips_own_words(output: list[str], said: str) -> None:
    sentence = reason(setup_failed(INDEX, *output))
    assert f"pip can't install its python.requirements{said}" in sentence
    assert sentence.endswith("see to it that every node of the cluster can get the package")
    assert FOLDER not in sentence


def test_index_that_cannot_be_reached_is_told_apart_from_a_package_that_is_not_there() -> None:
    retry = "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError': /simple/foo/"
    missing = "ERROR: Could not find a version that satisfies the requirement foo (from versions: none)"
    assert "foo (from versions: none) (its package index can't be reached);" in reason(setup_failed(retry, missing))
    assert "reached" not in reason(setup_failed(missing))


def test_long_list_of_versions_keeps_the_package_and_the_newest() -> None:
    versions = ", ".join(f"1.{n}.0" for n in range(500))
    sentence = reason(setup_failed(f"ERROR: Could not find a version of numpy==99 (from versions: {versions})"))
    assert "numpy==99" in sentence
    assert "1.499.0" in sentence
    assert len(sentence) < 2 * SHORT


def test_environment_that_cannot_be_made_is_not_blamed_on_pip() -> None:
    sentence = reason(setup_failed("OSError: [Errno 28] No space left on device", command=CLONE))
    assert sentence.startswith(
        "Ray can't make the environment for its python.requirements: OSError: [Errno 28] No space"
    )
    assert "pip can't" not in sentence


def test_installation_that_takes_too_long_says_so() -> None:
    message = "Failed to install runtime_env within the timeout of 600 seconds. Consider increasing it.\nTimeoutError"
    assert reason(message).startswith("its python.requirements were not installed in time")


def test_requirement_that_would_replace_ray_says_so() -> None:
    message = (
        "RuntimeError: Changing the ray version is not allowed: \n  current version: 2.9.0, expect version: 2.60.0"
    )
    assert reason(message).endswith("leave ray out of them")


def test_error_of_ours_is_its_sentence_whatever_stands_around_it() -> None:
    stack = (
        "Error:\nTraceback (most recent call last):\n  File x\nnstarx.errors.InvalidConfiguration: a: is required\nx"
    )
    assert reason(stack) == "a: is required"


def test_error_that_is_not_called_one_is_the_line_below_the_last_frame() -> None:
    stack = """RuntimeError: Traceback (most recent call last):
  File "/srv/router/gateway.py", line 275, in _listen
    listener.bind((host, port))
    ^^^^^^^^^^^^^^^^^^^^^^^^^^^
socket.gaierror: [Errno -2] Name or service not known
[raylet] see the logs"""
    assert reason(stack) == "socket.gaierror: [Errno -2] Name or service not known"


def test_foreign_error_is_its_line() -> None:
    assert reason("Traceback\n  File x\nValueError: no\nsee the logs") == "ValueError: no"
    assert reason("waits for CPUs") == "waits for CPUs"
    assert reason("") == "no reason given"


@given(st.text())
def test_any_output_of_pip_makes_one_short_sentence(output: str) -> None:
    sentence = reason(setup_failed("x", *output.splitlines()))
    assert sentence
    assert "\n" not in sentence
    assert len(sentence) < 4 * SHORT
