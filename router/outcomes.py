"""Outcomes as they come over HTTP: one, or a list, which counts as a whole or not at all."""

from starlette.requests import Request

from nstarx.errors import InvalidConfiguration
from nstarx.spec.experiment import InvalidOutcome, OutcomeRecord
from nstarx.spec.record import Record, parse
from router.rendering import read_document

MOST = 1000
"""Outcomes in one request."""


class _Outcomes(Record):
    outcomes: list[OutcomeRecord]


async def read_outcomes(request: Request) -> tuple[OutcomeRecord, ...]:
    """The outcomes of a request's body: an object or a list of them. Raises InvalidOutcome that names the field."""
    document = await read_document(request)
    documents = document if isinstance(document, list) else [document]
    if not 0 < len(documents) <= MOST:
        raise InvalidOutcome(f"send 1 to {MOST} outcomes at once, not {len(documents)}")
    try:
        return tuple(parse(_Outcomes, {"outcomes": documents}, "body").outcomes)
    except InvalidConfiguration as error:
        raise InvalidOutcome(error.sentence.removeprefix("body: ")) from None
