"""Conversations as Markdown files: readable, whole, and no message can swallow the next."""

from __future__ import annotations

import importlib
import json
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from s3conv import ConversationState
from s3conv.exchange.markdown import conversation_markdown
from s3conv.exchange.prose import printable
from tests.exchange import pages
from tests.exchange.shared import real_file
from tests.strategies import states

yaml: Any = importlib.import_module("yaml")

OPENERS = (
    "```\n", "````python\n", "~~~\n", "- ```\n", "> ~~~\n", "1. a\n   ```\n", "<!-- ", "<script>\n", "<pre>\n", "<?x ",
    "<!A ", "<![CDATA[", "<textarea>", "<div>\n", "    ", "- a\n", "> a", "a\n===", "---\n", "# a\n", "[a]: <",
    "`", "```", "| a |\n|-|\n", "\\", "-->", "~~~~~\n\n", "\n", "\n\n", "text ", "<style>",
)  # fmt: skip
"""What begins something in Markdown that may end late or never."""

open_texts = st.lists(st.sampled_from(OPENERS) | st.sampled_from(pages.HOSTILE) | st.text(max_size=5), max_size=6)


def split(text: str) -> tuple[dict[str, Any], str]:
    """The front matter, read as YAML, and the rest."""
    _, front, rest = text.split("---\n", 2)
    return yaml.safe_load(front), rest


def parsed(text: str) -> list[Token]:
    return MarkdownIt("commonmark").parse(split(text)[1])


def headings(text: str) -> list[str]:
    """The headings of the second level that are in no list, quotation or fence."""
    tokens = parsed(text)
    return [
        tokens[n + 1].content
        for n, token in enumerate(tokens)
        if token.type == "heading_open" and token.tag == "h2" and token.level == 0
    ]


def test_a_conversation_with_branches() -> None:
    state = pages.tree()
    text = conversation_markdown(state)
    front, rest = split(text)
    assert front == {
        "conversation_id": "tree",
        "created_at": state.created_at.isoformat(),
        "updated_at": state.updated_at.isoformat(),
        "messages": 10,
        "branches": 4,
        "metadata": {"title": "A haiku, four times"},
    }
    assert rest.startswith("\n# A haiku, four times\n\n## System\n\n")
    assert headings(text) == [
        *("System", "User", "Assistant", "User", "Assistant"),  # where it stands
        *("Assistant", "Assistant", "User", "Assistant", "Assistant"),
    ]
    places = [text.index(said) for said in (pages.SEA, pages.GULLS, pages.POST, pages.CRUST, pages.WAVES, pages.DEEP)]
    assert places == sorted(places)
    assert "*Here the conversation branches: [1](#part-5), [2 (current)](#part-2), [3](#part-6).*" in text
    assert "[2 funnier (current)](#part-3)" in text
    assert '<a id="part-3"></a>**Branch 2 of 2** after [message 4](#message-4)' in text
    assert "*2026-03-02 00:06:00+00:00 · branch funnier*" in text
    assert set(re.findall(r"\(#([a-z]+-\d+)\)", text)) <= set(re.findall(r'<a id="([a-z]+-\d+)"></a>', text))


def test_a_linear_chat_has_plain_sections() -> None:
    state = ConversationState("c")
    state.add_message("user", "Hello", timestamp=pages.at(0))
    state.add_message("assistant", "Hi!\n\n- a", timestamp=pages.at(1), metadata={"model": "m_1"})
    assert conversation_markdown(state).split("---\n", 2)[2] == (
        "\n# c\n\n## User\n\n*2026-03-01 23:58:00+00:00*\n\nHello\n\n"
        "## Assistant\n\n*2026-03-01 23:59:00+00:00 · m\\_1*\n\nHi!\n\n- a\n"
    )


def test_tools_and_parts() -> None:
    text = conversation_markdown(pages.code())
    assert "**Image** · `image/png` · 294 bytes, which are in the archive and not in this file" in text
    assert "**File** · `report.pdf` · `application/pdf`" in text
    assert "**Image** · `https://example.com/cat.jpg`" in text
    assert "> **Thoughts**\n>\n> They want to know what it is.\n\nI look.\n\n" in text
    assert "**Calls `search`** · call `call-1`\n\n- `query`: `a square`\n" in text
    assert '**Result of `search`** · call `call-1`\n\n```\n[{"title": "Squares"}]\n```\n' in text
    assert pages.LISTING.strip() in text


def test_what_is_not_shown_is_said_or_shown() -> None:
    state = pages.code()
    state.add_message("user", "x", metadata={"rating": 5}, prompt_name="p")
    text = conversation_markdown(state)
    assert split(text)[0]["not_shown"] == "metadata of 2 messages"
    assert '"rating": 5' not in text
    whole = conversation_markdown(state, details=True)
    assert "not_shown" not in split(whole)[0]
    assert '"rating": 5' in whole
    assert '"prompt_name": "p"' in whole


@given(st.lists(open_texts.map("".join), min_size=1, max_size=4))
@settings(max_examples=400)
def test_no_message_swallows_the_next(texts: list[str]) -> None:
    state = ConversationState("c")
    for number, text in enumerate(texts):
        content: Any = [text, {"type": "thinking", "thinking": text}, {"type": "odd", "x": text}]
        call = {"function": {"name": text, "arguments": {text: text}}}
        state.add_message(f"role{number}", content, name=text, tool_calls=[call], branch_name=text)
        state.add_message("tool", text, name=text, tool_call_id=text)
    shown = conversation_markdown(state, details=True)
    assert [one for one in headings(shown) if re.fullmatch(r"role\d|Tool", one)] == [
        role for number in range(len(texts)) for role in (f"role{number}", "Tool")
    ]
    for text in texts:
        assert printable(text).strip("\n") in shown


@given(states())
def test_any_conversation_has_its_front_matter_and_all_messages(state: ConversationState) -> None:
    text = conversation_markdown(state)
    front, _ = split(text)
    assert front["conversation_id"] == state.conversation_id
    assert front["messages"] == sum(1 for _ in state.message_tree.walk())
    assert front["branches"] == len(state.leaves())
    assert len(headings(text)) >= front["messages"]
    text.encode()


keys = st.dictionaries(st.text(max_size=120), st.none() | st.booleans() | st.integers() | st.text(), max_size=4)


@given(keys)
def test_metadata_is_read_back_from_the_front_matter(metadata: dict[str, Any]) -> None:
    state = ConversationState("c", metadata=metadata)
    front, _ = split(conversation_markdown(state))
    assert front.get("metadata", {}) == json.loads(json.dumps(metadata))


def test_the_long_session_is_whole() -> None:
    state = pages.session(real_file("agent/pi_before-compaction.jsonl.gz"))
    text = conversation_markdown(state)
    assert split(text)[0]["messages"] == 990
    ours = {"User", "Assistant", "Tool"}
    assert sum(one in ours for one in headings(text)) == 990
