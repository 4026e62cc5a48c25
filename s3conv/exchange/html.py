"""One conversation as an HTML page of its own: nothing beside it is needed, and nothing is loaded.

Law: whatever a conversation holds is text on the page. Elements and attributes are those written down here and in
`prose`, and the page's policy lets a browser run only the script and apply only the style sheet that are ours. The
page can be read without its script: it then shows all branches, one after the other, the current one first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from s3conv.exchange.html_frame import PAGE_END, counted, fold, page_begin, short_time
from s3conv.exchange.html_pieces import piece_html
from s3conv.exchange.pieces import Said, as_json, is_result, line_of, read_node, title_of
from s3conv.exchange.prose import code_block, escape
from s3conv.exchange.stretches import Stretch, stretches
from s3conv.exchange.values import is_told
from s3conv.model.message import ConversationNode, LLMMessage, as_utc
from s3conv.model.state import ConversationState

_ROLES = {"user": "User", "assistant": "Assistant", "system": "System"}
_SYSTEM_ROLES = frozenset(("system", "developer"))
_OF_A_TURN = frozenset(("assistant", "tool"))
_LONG_SYSTEM = 600
"""Characters of HTML from which on a system message is folded."""
_PREVIOUS, _NEXT = "\u2039", "\u203a"
_LONG_CHAT = 6
"""Questions from which on a page has a list of them."""


def conversation_page(state: ConversationState, *, back: str | None = None) -> str:
    """A conversation as one HTML file.

    Args:
        state: the conversation.
        back: relative URL of the page that lists all conversations; no link to it if None.

    Returns:
        The whole file; it has a UTF-8 form.

    Raises:
        InvalidInputError: a value in it is no JSON value, which cannot happen to one that was loaded.
    """
    found = stretches(state)
    parts = [
        page_begin(title_of(state), "conversation").rstrip(),
        *_page_head(state, found, back),
        "<main>",
        *(html for stretch in found for html in _stretch(stretch, state)),
        "" if found else '<p class="quiet">This conversation has no messages.</p>',
        "</main>",
        PAGE_END,
    ]
    return "\n".join(parts)


def _page_head(state: ConversationState, found: list[Stretch], back: str | None) -> Iterator[str]:
    branches = sum(not stretch.below for stretch in found)
    yield "<header>"
    if back is not None:
        yield f'<p class="back"><a href="{escape(back)}">← All conversations</a></p>'
    title = title_of(state)
    yield f'<h1 dir="auto">{escape(title)}</h1>'
    facts = [counted(found[-1].last_message if found else 0, "message")]
    if branches > 1:
        facts.append(counted(branches, "branch", "branches"))
    if isinstance(model := state.metadata.get("model"), str):
        facts.append(f"<bdi>{escape(model)}</bdi>")
    if is_told(state.updated_at):
        facts += [f"created {short_time(state.created_at)}", f"updated {short_time(state.updated_at)} UTC"]
    yield f'<p class="facts">{" <i>·</i> ".join(facts)}</p>'
    about: dict[str, Any] = {"conversation_id": state.conversation_id}
    about |= {name: value for name, value in (("metadata", state.metadata), ("more", state.extra)) if value}
    yield fold("about", "About this conversation", code_block(as_json(about), "JSON"))
    yield from _questions(found)
    yield "</header>"


def _questions(found: list[Stretch]) -> Iterator[str]:
    """The list of what the user said, with links, on the page of a long conversation."""
    asked = [
        (stretch.first_message + position, line_of(node.data.message, 90))
        for stretch in found
        for position, node in enumerate(stretch.nodes)
        if _kind(node.data.message) == "user"
    ]
    if len(asked) >= _LONG_CHAT:
        items = (f'<li><a href="#m{number}" dir="auto">{escape(line) or "…"}</a></li>' for number, line in asked)
        yield fold("questions", counted(len(asked), "question"), f"<ol>{''.join(items)}</ol>")


def _stretch(stretch: Stretch, state: ConversationState) -> Iterator[str]:
    above = stretch.above
    data = f' data-above="b{above.number}"' if above is not None else ""
    yield f'<section class="stretch{"" if stretch.on_show else " off"}" id="b{stretch.number}"{data}>'
    if above is not None:
        yield _switch(stretch, above)
    current = state.get_current_node()
    before = above.nodes[-1].data if above is not None else None
    for number, place in enumerate(stretch.nodes, stretch.first_message):
        yield _message(place.data, number, before)
        if place is current and place.children:
            yield '<p class="quiet here">The conversation stands here. What follows was written before.</p>'
        before = place.data
    yield "</section>"


def _switch(stretch: Stretch, above: Stretch) -> str:
    siblings = stretch.siblings
    position, last = stretch.position, len(siblings) - 1

    def arrow(sign: str, rel: str, name: str, other: int) -> str:
        if not 0 <= other <= last:
            return f'<span class="end">{sign}</span>'
        return f'<a href="#b{siblings[other].number}" rel="{rel}" aria-label="{name} branch">{sign}</a>'

    return (
        f'<nav class="switch" aria-label="Branch {position + 1:,} of {last + 1:,}">'
        f"{arrow(_PREVIOUS, 'prev', 'Previous', position - 1)}"
        f"<span>{position + 1:,} / {last + 1:,}</span>"
        f"{arrow(_NEXT, 'next', 'Next', position + 1)}"
        f'<span class="from">follows <a href="#m{above.last_message}">message {above.last_message:,}</a></span></nav>'
    )


def _kind(message: LLMMessage) -> str:
    """How a message is shown: the class of its article."""
    if is_result(message):
        return "tool"
    if message.role in _SYSTEM_ROLES:
        return "system"
    return message.role if message.role in ("user", "assistant") else "other"


def _message(node: ConversationNode, number: int, before: ConversationNode | None) -> str:
    said = read_node(node)
    kind = _kind(node.message)
    goes_on = kind in _OF_A_TURN and before is not None and _kind(before.message) in _OF_A_TURN
    inner = "".join(piece_html(piece, kind) for piece in said.pieces)
    if said.synthetic:
        inner = '<p class="quiet">A place without a message</p>'
    elif not inner:
        inner = '<p class="quiet">No text</p>'
    if kind == "system" and len(inner) > _LONG_SYSTEM:
        inner = fold("long", f'<span dir="auto">{escape(line_of(node.message, 160))}</span>', inner)
    more = " more" if goes_on else ""
    return (
        f'<article class="{kind}{more}" id="m{number}">{_message_head(node, said, number, before)}'
        f'<div class="said">{inner}</div></article>'
    )


def _message_head(node: ConversationNode, said: Said, number: int, before: ConversationNode | None) -> str:
    role = node.message.role
    head = [f"<h2><bdi>{escape(_ROLES.get(role, role) or 'No role')}</bdi></h2>"]
    for name, text in (("name", node.message.name), ("branch", node.branch_name), ("model", said.model)):
        if text:
            head.append(f'<span class="{name}"><bdi>{escape(text)}</bdi></span>')
    same_day = before is not None and as_utc(before.timestamp).date() == as_utc(node.timestamp).date()
    at = short_time(node.timestamp, with_day=not same_day) if is_told(node.timestamp) else f"#{number}"
    head.append(f'<a class="at" href="#m{number}">{at}</a>')
    if said.beside:
        dots = '<span title="Details">···</span>'
        head.append(fold("beside", dots, code_block(as_json(said.beside), "JSON")))
    return f"<header>{''.join(head)}</header>"
