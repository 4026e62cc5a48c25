"""Writes the help of every command into docs/cli.md: `python -m tests.cli.regenerate_docs`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"
COMMANDS = ["", "init", "import", "list", "show", "export", "delete", "maintain", "verify", "stats"]


def help_of(command: str) -> str:
    """What `s3conv COMMAND --help` prints on a terminal of 80 columns."""
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-8"}
    arguments = [sys.executable, "-c", "from s3conv.cli import main; main()", *command.split(), "--help"]
    done = subprocess.run(
        arguments, env=environment, cwd=DOCS.parents[1], capture_output=True, encoding="utf-8", check=True
    )
    return "\n".join(line.rstrip() for line in done.stdout.splitlines()).strip() + "\n"


def section(command: str) -> str:
    """The part of docs/cli.md about a command."""
    name = f"s3conv {command}".strip()
    return f"## {name}\n\n```text\n{help_of(command)}```\n"


def written() -> str:
    """docs/cli.md as it should be: its introduction, and a section for each command."""
    introduction = DOCS.read_text(encoding="utf-8").partition("\n## s3conv\n")[0].rstrip("\n")
    return introduction + "\n\n" + "\n".join(section(command) for command in COMMANDS)


if __name__ == "__main__":
    DOCS.write_text(written(), encoding="utf-8")
