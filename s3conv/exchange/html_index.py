"""The page that lists all conversations of an HTML export, written row by row while they are exported.

Law: memory does not grow with the number of conversations. Each row is a piece of the page itself, so that the list
can be read without the page's script, which only searches and sorts what is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from s3conv.exchange.html_frame import PAGE_END, counted, page_begin, short_time
from s3conv.exchange.pieces import first_words, title_of
from s3conv.exchange.prose import escape
from s3conv.exchange.values import is_told
from s3conv.model.message import as_utc
from s3conv.model.state import ConversationState

MAX_TEXT = 300
"""Characters of a conversation's text that are in the list, and that its search finds."""

MAX_TITLE = 200
"""Characters of a title that are in the list."""


@dataclass(frozen=True, slots=True)
class IndexRow:
    """What the list says of one conversation; `href` is the relative URL of its page, `text` how it begins."""

    href: str
    title: str
    created_at: datetime
    updated_at: datetime
    messages: int
    branches: int
    text: str


def index_row(state: ConversationState, href: str) -> IndexRow:
    """What the list says of a conversation, read from itself.

    Args:
        state: the conversation.
        href: relative URL of its page, percent-encoded: `naming.link_to` makes one of a file's name.
    """
    messages = branches = 0
    for node in state.message_tree.walk() if state.leaves() else ():
        messages += 1
        branches += not node.children
    text = first_words(state, MAX_TEXT)
    return IndexRow(href, title_of(state), state.created_at, state.updated_at, messages, branches, text)


def index_begin(title: str = "Conversations") -> str:
    """The beginning of the page. Then comes each row's `row_html`, in any order, and `index_end`."""
    return (
        page_begin(title, "index")
        + f"""<header>
<h1 dir="auto">{escape(title)}</h1>
<div class="tools" role="search">
<input id="search" type="search" placeholder="Search titles and first messages" aria-label="Search" autocomplete="off">
<select id="order" aria-label="Order">
<option value="newest">Newest first</option>
<option value="oldest">Oldest first</option>
<option value="longest">Longest first</option>
<option value="title">By title</option>
</select>
</div>
</header>
<main>
<ol id="list">
"""
    )


def row_html(row: IndexRow) -> str:
    """One row of the list, a line of the page."""
    title = row.title if len(row.title) <= MAX_TITLE else f"{row.title[: MAX_TITLE - 1]}…"
    updated = as_utc(row.updated_at).isoformat(timespec="microseconds")
    facts = [counted(row.messages, "message")]
    if row.branches > 1:
        facts.append(counted(row.branches, "branch", "branches"))
    if is_told(row.updated_at):
        facts.append(short_time(row.updated_at))
    text = f'<p class="text" dir="auto">{escape(row.text)}</p>' if row.text and row.text != row.title else ""
    return (
        f'<li data-updated="{updated}" data-messages="{row.messages}">'
        f'<a href="{escape(row.href)}" dir="auto">{escape(title)}</a>{text}'
        f'<p class="facts">{" <i>·</i> ".join(facts)}</p></li>\n'
    )


def index_end(conversations: int, exported_at: datetime | None = None) -> str:
    """The end of the page.

    Args:
        conversations: how many rows were written.
        exported_at: when; not said if None.
    """
    when = f", exported {short_time(exported_at)} UTC" if exported_at is not None else ""
    every = counted(conversations, "conversation")
    return f"""</ol>
<button type="button" id="more" hidden>Show more</button>
<p class="facts"><span id="count" data-all="{every}" aria-live="polite">{every}</span>{when}</p>
</main>
{PAGE_END}"""
