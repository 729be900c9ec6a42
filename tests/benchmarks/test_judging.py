"""The simulations of judging: drawn right, and told right. The real runs are `python -m benchmarks.judging`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from benchmarks import judging, report
from benchmarks.judging import Blame, Course, Rise, blamed, measured

RISE = Rise("errors rise", 0.1, 0.05, quiet=500, runs=10, wanted=400)


def test_failures_come_as_often_as_the_course_says() -> None:
    course, random, calls = Course(((1000, 0.01), (1000, 0.5))), np.random.default_rng(1), np.zeros(500)
    early = late = 0
    while calls.min() < 2000:
        calls = course.next_failure(calls, random)
        early += int((calls <= 1000).sum())
        late += int(((calls > 1000) & (calls <= 2000)).sum())
    assert early / 500 == pytest.approx(10, rel=0.05)
    assert late / 500 == pytest.approx(500, rel=0.02)


def test_everything_fails_where_the_course_says_so() -> None:
    course, random = Course(((10, 0.0), (10, 1.0))), np.random.default_rng(1)
    calls = course.next_failure(np.zeros(3), random)
    assert list(calls) == [11, 11, 11]
    assert list(course.next_failure(calls, random)) == [12, 12, 12]


def test_failures_of_the_stable_version_follow_the_same_course() -> None:
    course, random = Course(((10, 0.0), (10, 1.0))), np.random.default_rng(1)
    failures = course.stable_failures(np.array([0.0, 0.0, 12.0]), np.array([10.0, 15.0, 20.0]), 9.0, random)
    assert list(failures) == [0, 45, 72]


def test_bad_version_is_demoted_within_the_bound_by_the_code_that_runs_live() -> None:
    rise = measured(RISE)
    assert rise.met
    assert 0 < min(rise.calls) <= rise.median <= rise.p95
    assert set(rise.rules) <= {"min_effect", "consecutive_failures", "max_error_rate"}


def test_good_version_is_not_demoted() -> None:
    assert blamed(Blame("both fail", 0.1, Course(((20_000, 0.02),)), runs=50), seed=1).demoted == 0


def test_bad_spell_of_both_demotes_nobody() -> None:
    course = Course(((2000, 0.001), (200, 0.5), (2000, 0.001)))
    assert blamed(Blame("both fail", 0.1, course, runs=50), seed=1).demoted == 0


def test_simulation_of_good_versions_would_notice_a_judge_that_cries_wolf(monkeypatch: pytest.MonkeyPatch) -> None:
    hasty = judging.POLICY.model_copy(update={"false_alarm": 1e6, "consecutive_failures": 1, "min_requests": 1})
    monkeypatch.setattr(judging, "POLICY", hasty)
    assert blamed(Blame("both fail", 0.1, Course(((20_000, 0.02),)), runs=50), seed=1).demoted > 0


def test_runs_without_a_false_demotion_bound_its_chance_by_the_rule_of_three() -> None:
    blame = Blame("both fail", 0.1, Course(((1000, 0.0),)), runs=3000, wanted=0.001)
    assert blame.bound == pytest.approx(1 - 0.05 ** (1 / 3000))
    assert blame.met
    assert not replace(blame, demoted=1).met
    assert replace(blame, demoted=1500).bound == pytest.approx(0.515, abs=0.001)


def test_results_are_written_as_json_and_markdown(tmp_path: Path) -> None:
    rise = replace(RISE, calls=(100, 200, 300), rules=("min_effect",) * 3)
    blame = Blame("both fail", 0.1, Course(((1000, 0.0),)), wanted=0.001)
    judging.publish([rise], [blame], tmp_path)
    text = (tmp_path / "judging.md").read_text()
    assert "| errors rise | 10% | 10 | 200 | 290 | 300 | median ≤ 400 | yes |" in text
    assert "| both fail | 10% | 1,000 | 3,000 | 0 | 0.0998% | < 0.1% | yes |" in text
    assert orjson.loads((tmp_path / "judging.json").read_bytes())["rises"][0]["calls"] == [100, 200, 300]


def test_readme_has_the_section_that_is_filled() -> None:
    assert "new" in report.fill(report.README.read_text(), "judging", "new")
