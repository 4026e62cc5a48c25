"""docs/cli.md has every command, and what each `--help` really prints."""

from __future__ import annotations

import pytest

from s3conv.cli.app import app
from tests.cli.regenerate_docs import COMMANDS, DOCS, help_of, written


def test_every_command_is_documented() -> None:
    names = {
        command.name or (command.callback.__name__ if command.callback else "") for command in app.registered_commands
    }
    assert names == set(COMMANDS[1:])
    text = DOCS.read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        f"## s3conv {name}".rstrip() for name in COMMANDS
    ]


def test_the_help_in_the_docs_is_what_is_printed() -> None:
    assert DOCS.read_text(encoding="utf-8") == written(), "stale: run `python -m tests.cli.regenerate_docs`"


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_every_help_has_examples_that_begin_with_the_command(command: str) -> None:
    text = help_of(command)
    examples = text.partition("Examples:\n")[2].partition("\n\n")[0].splitlines()
    assert len(examples) >= 2
    assert all(line.strip().startswith(f"s3conv {command} ") for line in examples)
