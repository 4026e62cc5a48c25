"""The pages under docs/: their examples run and print what they say, and their links lead somewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.docs.test_readme import PROJECT, URL_ROOT, run

PAGES = sorted(PROJECT.glob("docs/**/*.md"))
EXAMPLES = [
    pytest.param(example, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, example in enumerate(
        re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    )
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_prints_what_it_says(example: str, tmp_path: Path) -> None:
    expected = re.findall(r"# prints: (.*)$", example, flags=re.MULTILINE)
    assert expected
    script = tmp_path / "example.py"
    script.write_text(example.replace(URL_ROOT, f"file://{tmp_path}/"), encoding="utf-8")
    assert run([sys.executable, "-W", "error", str(script)], tmp_path).splitlines() == expected


@pytest.mark.parametrize(
    "page", [*PAGES, PROJECT / "README.md", PROJECT / "infra" / "README.md"], ids=lambda page: page.stem
)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert broken == []


def test_decisions_have_the_four_parts_and_stay_short() -> None:
    for page in PROJECT.glob("docs/adr/0*.md"):
        text = page.read_text(encoding="utf-8")
        for part in ("**Context.**", "**Decision.**", "**Rejected options.**", "**Consequences.**"):
            assert part in text, f"{page.name} has no {part}"
        assert len(text.splitlines()) <= 40, f"{page.name} is long for a decision"
