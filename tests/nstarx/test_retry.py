"""What a retry document may say, and what it means."""

import pytest

from nstarx.errors import InvalidConfiguration
from nstarx.spec.record import parse
from nstarx.spec.retry import HedgeSpec, RetrySpec


def test_words_become_statuses() -> None:
    assert RetrySpec().statuses == frozenset()
    assert RetrySpec(retry_on=("gateway_error",)).statuses == {502, 503, 504}
    assert {500, 501, 503} <= RetrySpec(retry_on=("server_error", "gateway_error")).statuses


def test_lists_are_taken_as_yaml_has_them() -> None:
    spec = parse(RetrySpec, {"retry_on": ["reset", "per_try_timeout"], "per_try_timeout_s": 1}, "retry")
    assert spec.per_try_timeout_s == 1


def test_timeout_without_a_time_is_refused() -> None:
    with pytest.raises(InvalidConfiguration, match="per_try_timeout needs per_try_timeout_s"):
        parse(RetrySpec, {"retry_on": ["per_try_timeout"]}, "retry")


def test_hedge_before_the_median_is_refused() -> None:
    with pytest.raises(InvalidConfiguration, match="after_quantile"):
        parse(HedgeSpec, {"after_quantile": 0.4}, "hedge")
