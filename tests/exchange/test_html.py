"""Pages as text: what is on them, and that nothing is that we did not put there, whatever a conversation holds."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3conv import ConversationState
from s3conv.exchange.html import conversation_page
from s3conv.exchange.html_index import IndexRow, index_begin, index_end, index_row, row_html
from s3conv.exchange.html_pieces import MAX_IMAGE
from s3conv.exchange.prose import MAX_BRACKETS, MAX_MARKDOWN, code_block, markdown, plain, printable
from tests.exchange import pages
from tests.strategies import states

VOID = frozenset(("meta", "br", "hr", "img", "input"))
ALLOWED: dict[str, set[str]] = {
    "html": {"lang"}, "head": set(), "title": set(), "style": set(), "script": set(), "body": {"class"},
    "meta": {"charset", "name", "content", "http-equiv"}, "header": set(), "main": set(),
    "nav": {"class", "aria-label"},
    "section": {"class", "id", "data-above"}, "article": {"class", "id"}, "h1": {"dir"}, "h2": set(), "h3": set(),
    "h4": set(), "h5": set(), "h6": set(), "p": {"class", "dir"}, "div": {"class", "dir", "role"},
    "span": {"class", "dir", "title", "aria-label", "id", "data-all", "aria-live"}, "bdi": set(), "b": set(),
    "i": set(),
    "a": {"href", "rel", "title", "class", "dir", "aria-label"}, "time": {"datetime", "title"},
    "details": {"class"}, "summary": set(), "figure": {"class"}, "figcaption": set(), "pre": {"dir"}, "code": set(),
    "button": {"type", "class", "id", "hidden"}, "img": {"src", "alt"}, "br": set(), "hr": set(), "ul": set(),
    "ol": {"start", "id"}, "li": {"dir", "data-updated", "data-messages"}, "blockquote": set(), "table": set(),
    "thead": set(), "tbody": set(), "tr": set(), "th": {"class"}, "td": {"class"}, "em": set(), "strong": set(),
    "s": set(), "input": {"id", "type", "placeholder", "aria-label", "autocomplete"}, "select": {"id", "aria-label"},
    "option": {"value"}, "dl": set(), "dt": set(), "dd": set(),
}  # fmt: skip
"""Every element of a page, with the attributes that it may have. There are no others, so none that runs a script."""

VALUES = {
    "id": r"[mb][1-9][0-9]*|search|order|list|more|count",
    "class": r"[a-z]+( off| more| here)?",
    "dir": "auto|ltr",
    "href": r"#[mb][1-9][0-9]*|\.\./index\.html|(?i:https?://|mailto:)\S.*",
    "rel": "prev|next|noopener noreferrer",
    "src": r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+",
    "start": "[0-9]+",
    "data-above": "b[1-9][0-9]*",
}


class Read(HTMLParser):
    """A page as it is read: its elements are checked one by one, its text is collected.

    Everything that a browser would have to mend (an element that is not closed, or closed twice) is an error.
    """

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.texts: list[str] = []
        self.own: dict[str, str] = {"style": "", "script": ""}
        self.links: list[str] = []
        self.policy = ""
        page.encode()  # no lone surrogate
        self.feed(page)
        self.close()
        assert self.open == []
        self.text = "".join(self.texts)

    def handle_decl(self, decl: str) -> None:
        assert decl == "DOCTYPE html"

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data}")

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def handle_pi(self, data: str) -> None:
        raise AssertionError(f"a processing instruction: {data}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED, tag
        assert len({name for name, _ in attrs}) == len(attrs)
        for name, value in attrs:
            assert name in ALLOWED[tag], f"<{tag} {name}>"
            assert name not in VALUES or re.fullmatch(VALUES[name], value or "", re.DOTALL), f"{name}={value}"
        found = dict(attrs)
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""
        if tag == "a":
            self.links.append(found["href"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.own:
            self.own[self.open[-1]] += data
        else:
            self.texts.append(data)


def letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text)


fragments = st.sampled_from(pages.HOSTILE) | st.text(max_size=8)
hostile = st.lists(fragments, max_size=5).map("".join)
"""Texts of what has broken pages, and anything else, lone surrogates included."""


def conversation(role: str, content: Any, **more: Any) -> ConversationState:
    state = ConversationState("c", created_at=pages.at(0), updated_at=pages.at(0))
    state.add_message(role, content, timestamp=pages.at(0), **more)
    return state


# --- nothing is on a page that we did not put there ----------------------------------------------------------


@given(states())
def test_whatever_a_conversation_holds_its_page_has_only_our_elements(state: ConversationState) -> None:
    Read(conversation_page(state, back="../index.html"))
    Read(index_begin() + row_html(index_row(state, "../index.html")) + index_end(1))


@given(hostile, hostile, st.sampled_from(["user", "assistant", "system", "tool", "</h2>"]))
@settings(max_examples=300)
def test_hostile_texts_are_texts(text: str, name: str, role: str) -> None:
    state = conversation(
        role,
        [text, {"type": "thinking", "thinking": text}, {"type": name, name: text}],
        name=name,
        tool_calls=[{"id": name, "function": {"name": name, "arguments": {name: text}}}],
        metadata={"model": name, name: text},
        branch_name=name,
    )
    state.metadata = {"title": name, "model": name}
    read = Read(conversation_page(state))
    assert printable(text).strip("\n") in read.text  # in the arguments of the call, as it is


@given(hostile)
def test_a_plain_text_is_there_to_the_letter(text: str) -> None:
    whole = printable(text).strip("\n")
    if re.search(r"^ {0,3}(```|~~~)", whole, re.MULTILINE):
        assert letters(Read(f"<div>{plain(text)}</div>").text.replace("Copy", "")) == letters(whole.replace("Copy", ""))
    else:
        assert Read(plain(text)).text == (whole if whole.strip() else "")
    assert Read(code_block(text)).text == "Copy" + printable(text)


MARKUP = (
    *"abc XYZ\n\n\t*_`~#>-+=|:!()[]{}^$@%/\\.,;'\"", "> ", "- ", "* ", "# ", "\n\n", "    ", "```", "~~~", "---", "**",
    "|a|b|\n|-|-|\n|c|d|e|\n", "![", "](", "](b)", "  \n",
)  # fmt: skip
"""Without digits, references (&amp;) and links: these are the letters that a reader does not see."""


@given(st.lists(st.sampled_from(MARKUP), max_size=40).map("".join))
@settings(max_examples=500)
def test_no_letter_of_a_text_in_markdown_is_lost(text: str) -> None:
    shown = Read(f"<div>{markdown(text)}</div>")
    assert letters(shown.text.replace("Copy", "")) == letters(text)


@pytest.mark.parametrize(("text", "shown"), [("[a]()", "a"), ("![a]()", "![a]()"), ("[![a]()]() b", "![a]() b")])
def test_a_link_to_nowhere_is_its_text(text: str, shown: str) -> None:
    read = Read(markdown(text))
    assert (read.text, read.links) == (shown, [])


@pytest.mark.parametrize("text", ["> " * 50 + "deep", "- " * 50 + "deep", "|a|\n|-|\n|b|surplus|", "1. " * 30 + "deep"])
def test_what_the_parser_would_leave_out_shows_as_plain_text(text: str) -> None:
    assert Read(markdown(text)).text == text


@pytest.mark.parametrize("text", ["a" * (MAX_MARKDOWN + 1), "[a" * (MAX_BRACKETS + 1), "\n".join(["x" * 99] * 9999)])
def test_a_text_that_takes_too_long_to_parse_is_plain(text: str) -> None:
    assert Read(markdown(text)).text == text


def test_links_go_to_the_web_and_to_mail_only() -> None:
    text = " ".join(
        [
            "[a](https://example.com/a?b=1&c=2) <mailto:a@example.com> ![b](http://example.com/b.png)",
            "https://example.com/c_(d). (https://example.com/e)",
            "[f](javascript:alert(1)) ![g](data:image/png;base64,AAAA) [h](file:///etc/passwd)",
            "[i](../up.html) [j](#m1) [k](//example.com)",
        ]
    )
    read = Read(markdown(text))
    assert read.links == [
        "https://example.com/a?b=1&c=2",
        "mailto:a@example.com",
        "http://example.com/b.png",
        "https://example.com/c_(d)",
        "https://example.com/e",
    ]
    assert "[f](javascript:alert(1))" in read.text
    assert "![g](data:image/png;base64,AAAA)" in read.text


def test_the_policy_allows_our_script_and_our_style_sheet_and_nothing_else() -> None:
    for page in (conversation_page(pages.tree()), index_begin() + index_end(0)):
        read = Read(page)
        policy = dict(part.strip().split(" ", 1) for part in read.policy.split(";"))
        for kind in ("style", "script"):
            digest = base64.b64encode(hashlib.sha256(read.own[kind].encode()).digest()).decode()
            assert policy.pop(f"{kind}-src") == f"'sha256-{digest}'"
        assert policy == {
            "default-src": "'none'",
            "img-src": "data:",
            "base-uri": "'none'",
            "form-action": "'none'",
        }
        assert not re.search(r"https?:|url\(|@import|//\w", read.own["style"])
        assert not re.search(r"https?:|fetch|XMLHttp|innerHTML|insertAdjacent|eval|import\(", read.own["script"])


# --- what is on a page --------------------------------------------------------------------------------------


def test_every_message_and_every_branch_is_on_the_page_the_current_one_first() -> None:
    read = Read(conversation_page(pages.tree()))
    ours = [pages.SEA, pages.GULLS, pages.POST, pages.CRUST, pages.WAVES, pages.HAPPY, pages.DEEP]
    places = [letters(read.text).index(letters(text)) for text in ours]
    assert places == sorted(places)
    assert "10 messages · 4 branches" in read.text


def test_a_page_grows_with_its_messages_and_no_faster() -> None:
    sizes = []
    for messages in (200, 2_000):
        state = ConversationState("c")
        for _ in range(messages):
            state.add_message("assistant", "Yes.", timestamp=pages.at(0))
        sizes.append(len(conversation_page(state)) - len(conversation_page(ConversationState("c"))))
    assert sizes[1] < 11 * sizes[0]


def test_a_place_where_the_conversation_goes_on_before_its_end_is_marked() -> None:
    state = pages.tree()
    state.current_node_id = "0.1"
    text = Read(conversation_page(state)).text
    assert text.index(pages.GULLS[:20]) < text.index("The conversation stands here") < text.index("I like the gulls")
    assert "stands here" not in Read(conversation_page(pages.tree())).text


def test_empty_conversations_and_places_without_a_message_say_so() -> None:
    assert "no messages" in Read(conversation_page(ConversationState("c"))).text
    assert (
        "without a message" in Read(conversation_page(conversation("system", None, metadata={"synthetic": True}))).text
    )
    assert "No text" in Read(conversation_page(conversation("assistant", None))).text


def test_the_list_of_questions_comes_with_the_sixth() -> None:
    state = ConversationState("c")
    for number in range(6):
        assert "questions" not in Read(conversation_page(state)).text
        state.add_message("user", f"Question {number}?")
    assert "6 questions" in Read(conversation_page(state)).text


def image(data: str, media_type: str = "image/png") -> str:
    url = f"data:{media_type};base64,{data}"
    return conversation_page(conversation("user", [{"type": "image_url", "image_url": {"url": url}}]))


def test_only_real_and_small_images_are_shown() -> None:
    assert "<img" in image(pages.png())
    large = base64.b64encode(base64.b64decode(pages.png()) + b"\0" * MAX_IMAGE).decode()
    for page in (
        image(large),
        image(base64.b64encode(b"<svg onload=alert(1)>").decode()),
        image(pages.png(), "image/svg+xml"),
        image(pages.png(), "text/html"),
        image("no base64 !"),
        conversation_page(conversation("user", [{"type": "image_url", "image_url": {"url": "https://example.com/a"}}])),
    ):
        assert "<img" not in page
    assert "not on this page, but in the archive" in image(large)


def test_a_time_is_in_utc_to_the_minute_and_the_day_only_where_it_changes() -> None:
    state = ConversationState("c")
    for time in (pages.at(0), pages.at(1), pages.at(2), datetime(1, 1, 1, tzinfo=UTC)):
        state.add_message("user", "x", timestamp=time)
    times = re.findall(r'<time datetime="([^"]*)"[^>]*>([^<]*)</time>', conversation_page(state))[2:]
    assert times == [
        ("2026-03-01T23:58:00+00:00", "2026-03-01 23:58"),
        ("2026-03-01T23:59:00+00:00", "23:59"),
        ("2026-03-02T00:00:00+00:00", "2026-03-02 00:00"),
        ("0001-01-01T00:00:00+00:00", "0001-01-01 00:00"),
    ]


def test_a_row_of_the_list_is_bounded() -> None:
    state = conversation("user", "long " * 100_000)
    state.metadata["title"] = "title " * 10_000
    row = row_html(index_row(state, "c.html"))
    assert len(row) < 1_500
    assert row.count("\n") == 1


def test_a_row_from_values() -> None:
    read = Read(row_html(IndexRow("https://x", "T <b>", pages.at(0), pages.at(1), 1200, 3, "How?")))
    assert read.text == "T <b>How?1,200 messages · 3 branches · 2026-03-01 23:59\n"


def test_a_time_that_no_source_told_is_not_shown() -> None:
    """The importers' 1970-01-01 says that there is none; a minute later is a time."""
    state = ConversationState.start("c")
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    state.add_message("user", "Hello", timestamp=epoch)
    state.created_at = state.updated_at = epoch
    page, row = conversation_page(state), row_html(index_row(state, "c.html"))
    assert "<time" not in page
    assert "<time" not in row
    assert "1 message" in row
    assert re.search('<a class="at" href="#m1">#1</a>', page)
    state.updated_at = epoch.replace(minute=1)
    assert "updated <time" in conversation_page(state)
    assert "<time" in row_html(index_row(state, "c.html"))
