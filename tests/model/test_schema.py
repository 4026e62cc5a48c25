"""Schema versions: number triples, migrations on golden documents, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3conv.errors import SchemaVersionError
from s3conv.model.schema import SCHEMA_VERSION, migrate, parse_version
from s3conv.model.state import ConversationState
from tests.strategies import as_json

GOLDEN = Path(__file__).parents[1] / "golden"
DOCUMENTS = sorted(path.name for path in GOLDEN.glob("exchange-*.json") if ".expected" not in path.name)


def read(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def test_the_golden_documents_are_there() -> None:
    assert len(DOCUMENTS) == 5


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_of_each_version_is_read_as_expected(name: str) -> None:
    given_ = read(name)
    before = copy.deepcopy(given_)
    written = ConversationState.from_dict(given_).to_dict()
    assert as_json(written) == as_json(read(name.replace(".json", ".expected.json")))
    assert as_json(given_) == as_json(before)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_migrated_document_needs_no_further_migration(name: str) -> None:
    once = ConversationState.from_dict(read(name)).to_dict()
    assert as_json(ConversationState.from_dict(once).to_dict()) == as_json(once)


def test_versions_compare_as_number_triples() -> None:
    assert parse_version("1.10.0") > parse_version("1.9.0")
    assert parse_version("1.2.10") > parse_version("1.2.9")
    assert parse_version("10.0.0") > parse_version("9.99.99")
    assert parse_version("1.1.0") == (1, 1, 0)


@given(st.tuples(*[st.integers(0, 10**9 - 1)] * 3))
def test_every_version_of_three_numbers_is_read(version: tuple[int, int, int]) -> None:
    assert parse_version("{}.{}.{}".format(*version)) == version


MALFORMED: list[Any] = [
    "", "1", "1.1", "1.1.0.0", "1.1.0-beta", "1.1.0+1", "v1.1.0", "01.0.0", "1.01.0", "1.1.00", " 1.1.0", "1.1.0 ",
    "1.1.0\n", "1..0", "-1.1.0", "+1.1.0", "1.1.x", "١.١.٠", "1.1.1_0", "1.1." + "9" * 5000, 1, 1.1, True, None, [], {},
    ["1.1.0"], b"1.1.0",
]  # fmt: skip


@pytest.mark.parametrize("version", MALFORMED, ids=lambda version: repr(version)[:20])
def test_what_is_no_version_is_refused(version: Any) -> None:
    with pytest.raises(SchemaVersionError, match="schema_version"):
        parse_version(version)
    with pytest.raises(SchemaVersionError, match="schema_version") as refused:
        ConversationState.from_dict({**read("exchange-1.1.0.json"), "schema_version": version})
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("version", ["2.0.0", "2.1.0", "10.0.0"])
def test_a_newer_major_is_refused_with_what_to_do(version: str) -> None:
    with pytest.raises(SchemaVersionError, match=f"{version}.*upgrade s3conv"):
        ConversationState.from_dict({**read("exchange-1.1.0.json"), "schema_version": version})


@pytest.mark.parametrize("version", ["1.1.1", "1.2.0", "1.9.0", "1.10.0"])
def test_a_newer_minor_or_patch_is_kept_version_included(version: str) -> None:
    document = {**read("exchange-1.1.0.json"), "schema_version": version}
    assert as_json(ConversationState.from_dict(document).to_dict()) == as_json(document)


@pytest.mark.parametrize("version", ["0.0.1", "0.9.12", "1.0.0", "1.0.7"])
def test_anything_older_is_lifted_to_today(version: str) -> None:
    document = {**read("exchange-1.0.0-backups.json"), "schema_version": version}
    lifted = ConversationState.from_dict(document).to_dict()
    assert as_json(lifted) == as_json(read("exchange-1.0.0-backups.expected.json"))
    assert lifted["schema_version"] == SCHEMA_VERSION == "1.1.0"


def test_migrating_does_not_change_what_it_is_given() -> None:
    document = read("exchange-1.0.0-backups.json")
    before = copy.deepcopy(document)
    migrate(document)
    assert document == before
