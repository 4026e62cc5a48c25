"""Every real conversation as a page and as a Markdown file: whole, and with nothing on it but our own elements."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from s3conv import Archive, ConversationState
from s3conv.exchange.html import conversation_page
from s3conv.exchange.importing import import_files
from s3conv.exchange.markdown import conversation_markdown
from s3conv.exchange.prose import printable
from tests.exchange.shared import real_files
from tests.exchange.test_html import Read, letters
from tests.exchange.test_markdown import headings


@pytest.fixture(scope="module")
def conversations() -> Iterator[list[ConversationState]]:
    with Archive.create("memory://every-real-conversation") as archive:
        import_files(archive, real_files())
        loaded = [archive.load(entry.conversation_id) for entry in archive.iterate()]
        yield [state for state in loaded if state is not None]


def said(state: ConversationState) -> list[tuple[str, str]]:
    """The role and text of each message and part that has a text."""
    found = []
    for node in state.message_tree.walk():
        content = node.data.message.content
        for part in content if isinstance(content, list) else [content]:
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str):
                found.append((node.data.message.role, printable(text)))
    return found


def test_pages_are_whole(conversations: list[ConversationState]) -> None:
    assert len(conversations) > 300
    for state in conversations:
        page = conversation_page(state, back="../index.html")
        shown = Read(page).text
        assert page.count("<article ") == sum(1 for _ in state.message_tree.walk())
        assert page.count('<nav class="switch"') == sum(
            len(node.children) for node in state.message_tree.walk() if len(node.children) > 1
        )
        for role, text in said(state):
            if role == "assistant":
                # Marks of Markdown and the targets of links are not text: each line's longest run of letters is.
                words = [
                    max((word for word in line.split() if word.isalpha()), key=len, default="")
                    for line in text.split("\n")
                ]
                assert all(word in shown for word in words)
            elif "```" in text:
                assert letters(text.split("```")[0]) in letters(shown)
            else:
                assert text.strip("\n") in shown or not text.strip()


def test_markdown_files_are_whole(conversations: list[ConversationState], tmp_path: Path) -> None:
    for state in conversations:
        text = conversation_markdown(state)
        assert len(headings(text)) >= sum(1 for _ in state.message_tree.walk())
        for _, one in said(state):
            assert one.strip("\n") in text or not one.strip()
