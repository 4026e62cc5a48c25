"""One conversation as an HTML page of its own: nothing beside it is needed, and nothing is loaded.

Law: whatever a conversation holds is text on the page. Elements and attributes are those written down here and in
`prose`, and the page's policy lets a browser run only the script and apply only the style sheet that are ours. The
page can be read without its script: it then shows all branches, one after the other, the current one first.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

from s3conv.exchange.pieces import (
    Attachment,
    Call,
    Code,
    Piece,
    Prose,
    Result,
    Said,
    Thought,
    as_json,
    line_of,
    read_node,
    title_of,
)
from s3conv.exchange.prose import code_block, escape, link, markdown, plain
from s3conv.exchange.stretches import Stretch, stretches
from s3conv.model.message import ConversationNode, as_utc
from s3conv.model.state import ConversationState

MAX_IMAGE = 512 * 1024
"""Bytes of the largest image that is shown on the page; of a larger one the page says what it is."""

_IMAGES = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}
_ROLES = {"user": "User", "assistant": "Assistant", "system": "System"}
_SYSTEM_ROLES = frozenset(("system", "developer"))
_LONG_SYSTEM = 600
"""Characters from which on a system message is folded."""
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
    body = [
        *_page_head(state, found, back),
        "<main>",
        *(html for stretch in found for html in _stretch(stretch, state)),
        "" if found else '<p class="quiet">This conversation has no messages.</p>',
        "</main>",
    ]
    return page(title_of(state), "conversation", "\n".join(body))


def page(title: str, name: str, body: str) -> str:
    """A whole page: its policy, style sheet and script around HTML. `name` is that of the script among the assets."""
    return f"{page_begin(title, name)}{body}\n</body>\n</html>\n"


@cache
def _assets(name: str) -> tuple[str, str, str]:
    """Style sheet, script, and the policy that allows these two and nothing else."""
    folder = files("s3conv.exchange").joinpath("assets")
    style, script = (folder.joinpath(file).read_text(encoding="utf-8") for file in ("pages.css", f"{name}.js"))
    allowed = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script))
    style_hash, script_hash = allowed
    policy = (
        f"default-src 'none'; style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return style, script, policy


def page_begin(title: str, name: str) -> str:
    """Everything up to the content of a page's body."""
    style, script, policy = _assets(name)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="s3conv">
<title>{escape(title)}</title>
<style>{style}</style>
<script>{script}</script>
</head>
<body class="{name}">
"""


def short_time(time: datetime, with_day: bool = True) -> str:
    """A `time` element: in UTC and to the minute, with the whole time as it is kept in its tooltip."""
    exact, shown = time.isoformat(), as_utc(time)
    # Not strftime: it writes years before 1000 without their zeros on some systems.
    day = f"{shown.year:04}-{shown.month:02}-{shown.day:02} " if with_day else ""
    return f'<time datetime="{exact}" title="{exact}">{day}{shown.hour:02}:{shown.minute:02}</time>'


def counted(number: int, what: str, plural: str = "") -> str:
    """ "1 message", "1,000 messages"."""
    return f"{number:,} {what if number == 1 else plural or what + 's'}"


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
    facts += [f"created {short_time(state.created_at)}", f"updated {short_time(state.updated_at)} UTC"]
    yield f'<p class="facts">{" <i>·</i> ".join(facts)}</p>'
    about: dict[str, Any] = {"conversation_id": state.conversation_id}
    about |= {name: value for name, value in (("metadata", state.metadata), ("more", state.extra)) if value}
    yield _fold("about", "About this conversation", code_block(as_json(about), "JSON"))
    yield from _questions(found)
    yield "</header>"


def _questions(found: list[Stretch]) -> Iterator[str]:
    """The list of what the user said, with links, on the page of a long conversation."""
    asked = [
        (stretch.first_message + position, line_of(node.data.message, 90))
        for stretch in found
        for position, node in enumerate(stretch.nodes)
        if node.data.message.role == "user"
    ]
    if len(asked) >= _LONG_CHAT:
        items = (f'<li><a href="#m{number}" dir="auto">{escape(line) or "…"}</a></li>' for number, line in asked)
        yield _fold("questions", counted(len(asked), "question"), f"<ol>{''.join(items)}</ol>")


def _stretch(stretch: Stretch, state: ConversationState) -> Iterator[str]:
    above = stretch.above
    data = f' data-above="b{above.number}"' if above is not None else ""
    yield f'<section class="stretch{"" if stretch.on_show else " off"}" id="b{stretch.number}"{data}>'
    if above is not None and len(stretch.siblings) > 1:
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


def _message(node: ConversationNode, number: int, before: ConversationNode | None) -> str:
    said = read_node(node)
    role = node.message.role
    kind = role if role in _ROLES else "system" if role in _SYSTEM_ROLES else "other"
    if said.pieces and isinstance(said.pieces[0], Result):
        kind = "tool"
    goes_on = kind in ("assistant", "tool") and before is not None and before.message.role not in ("user", "system")
    inner = "".join(_piece(piece, kind) for piece in said.pieces)
    if said.synthetic:
        inner = '<p class="quiet">A place without a message</p>'
    elif not inner:
        inner = '<p class="quiet">No text</p>'
    if kind == "system" and len(inner) > _LONG_SYSTEM:
        inner = _fold("long", f'<span dir="auto">{escape(line_of(node.message, 160))}</span>', inner)
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
    head.append(f'<a class="at" href="#m{number}">{short_time(node.timestamp, with_day=not same_day)}</a>')
    if said.beside:
        dots = '<span title="Details" aria-label="Details">···</span>'
        head.append(_fold("beside", dots, code_block(as_json(said.beside), "JSON")))
    return f"<header>{''.join(head)}</header>"


def _fold(name: str, summary: str, inner: str) -> str:
    return f'<details class="{name}"><summary>{summary}</summary>{inner}</details>'


def _piece(piece: Piece, kind: str) -> str:
    match piece:
        case Prose(text):
            shown = markdown(text) if kind == "assistant" else plain(text)
            return f'<div class="prose" dir="auto">{shown}</div>' if shown else ""
        case Code(text, language):
            return code_block(text, language)
        case Thought(text):
            return _fold("thought", "Thoughts", f'<div class="prose" dir="auto">{markdown(text)}</div>')
        case Call(name, arguments, call_id):
            excerpt = _excerpt(arguments)
            return _fold("call", _tool_line("Calls", name, excerpt), _arguments(arguments) + _call_id(call_id))
        case Result(name, call_id, pieces, failed):
            return _result(name, call_id, pieces, failed)
        case Attachment():
            return _attachment(piece)
        case _:
            return _fold("value", f"<bdi>{escape(piece.kind)}</bdi>", code_block(as_json(piece.value), "JSON"))


def _tool_line(what: str, name: str | None, excerpt: str) -> str:
    named = f" <b><bdi>{escape(name)}</bdi></b>" if name else ""
    return f'{what}{named} <span class="excerpt"><bdi>{escape(excerpt)}</bdi></span>'


def _call_id(call_id: str | None) -> str:
    return f'<p class="quiet">Call <code>{escape(call_id)}</code></p>' if call_id else ""


def _excerpt(value: Any) -> str:
    """The beginning of arguments, for the line that they are folded into."""
    if isinstance(value, dict):
        value = next((one for one in value.values() if isinstance(one, str) and one.strip()), None) or as_json(value)
    text = value if isinstance(value, str) else as_json(value)
    return " ".join(text[:400].split())[:120]


def _arguments(arguments: Any) -> str:
    if isinstance(arguments, str):
        return code_block(arguments)
    if not isinstance(arguments, dict):
        return code_block(as_json(arguments), "JSON")
    return "".join(
        code_block(value, name) if isinstance(value, str) else code_block(as_json(value), f"{name} (JSON)")
        for name, value in arguments.items()
    )


def _result(name: str | None, call_id: str | None, pieces: tuple[Piece, ...], failed: bool) -> str:
    texts = [piece.text for piece in pieces if isinstance(piece, Prose | Code)]
    inner = (code_block(one.text) if isinstance(one, Prose) else _piece(one, "tool") for one in pieces)
    excerpt = " ".join(" ".join(text[:400] for text in texts[:4]).split())[:120] or "nothing" * (not pieces)
    what = "Failed result of" if failed else "Result of" if name else "Result"
    return _fold("result", _tool_line(what, name, excerpt), "".join(inner) + _call_id(call_id))


def _attachment(attachment: Attachment) -> str:
    label = escape(attachment.name or attachment.kind.capitalize())
    facts = [escape(attachment.media_type)] if attachment.media_type else []
    picture = ""
    if attachment.data is not None:
        size = len(attachment.data) * 3 // 4
        facts.append(_size(size))
        if size <= MAX_IMAGE and (data := _image(attachment)):
            picture = f'<img src="data:{attachment.media_type};base64,{data}" alt="{label}">'
        else:
            facts.append("not on this page, but in the archive")
    elif attachment.url is not None:
        shown = attachment.url if len(attachment.url) <= 2000 else f"{attachment.url[:2000]}…"
        facts.append(link(attachment.url, escape(shown)))
    return (
        f'<figure class="attachment">{picture}<figcaption><b><bdi>{label}</bdi></b> '
        f"<span>{' <i>·</i> '.join(facts)}</span></figcaption></figure>"
    )


def _image(attachment: Attachment) -> str:
    """The data of what really is an image of its type, as we would write it; else ""."""
    try:
        data = base64.b64decode(attachment.data or "", validate=True)
    except (binascii.Error, ValueError):
        return ""
    begins = _IMAGES.get(attachment.media_type, ())
    return base64.b64encode(data).decode() if data.startswith(begins) and begins else ""


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} KB" if size >= 1000 else f"{size} B"
