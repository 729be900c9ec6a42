from benchmarks import measurement
from tests.benchmarks.samples import reading


def test_repetitions_become_medians_by_number_of_connections() -> None:
    readings = [reading(1, requests=n) for n in (100, 900, 200)] + [reading(32, cpu_us=us) for us in (10, 30, 20)]
    figures = measurement.figures(readings)
    assert list(figures) == [1, 32]
    assert figures[1].requests_per_second == 200
    assert figures[32].cpu_us == 20


def test_wrong_answers_are_added_up_so_that_a_median_cannot_hide_them() -> None:
    assert measurement.medians([reading(wrong=0), reading(wrong=5), reading(wrong=0)]).wrong == 5


def test_memory_is_the_median_of_the_samples_that_have_the_process() -> None:
    samples = [{"gateway": 90.0}, {"gateway": 100.0, "replica": 120.0}, {"gateway": 110.0, "replica": 130.0}]
    assert measurement.median_memory(samples) == {"gateway": 100.0, "replica": 125.0}
