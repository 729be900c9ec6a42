"""The documents as tests read them: sections, tables, code blocks and links."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced code block."""

    page: Path
    language: str
    text: str


def pages() -> list[Path]:
    """Every document of the project."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md", *sorted(DOCS.rglob("*.md"))]


def text(name: str) -> str:
    """The text of a page of docs/."""
    return (DOCS / name).read_text()


def blocks(language: str) -> list[Block]:
    """Every code block in one language."""
    found = [Block(page, *match.groups()) for page in pages() for match in FENCE.finditer(page.read_text())]
    return [block for block in found if block.language == language]


def section(name: str, heading: str) -> str:
    """What stands under a heading of a page of docs/, up to the next heading."""
    parts = HEADING.split(FENCE.sub("", text(name)))
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def rows(markdown: str) -> list[list[str]]:
    """The cells of every row of its tables, less heads and rules."""
    lines = [line for line in markdown.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def codes(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def anchors(page: Path) -> set[str]:
    """What a link may name after `#`, as GitHub makes it from headings."""
    headings = HEADING.findall(FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
