"""The pieces of a message as HTML: prose as it is, tools and thoughts folded, images and files in boxes.

Law: that of `prose`. An image is shown only if it is in the message, is what it says that it is, and is small.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from s3conv.exchange.html_frame import fold
from s3conv.exchange.pieces import Attachment, Call, Code, Piece, Prose, Result, Thought, argument_texts, as_json
from s3conv.exchange.prose import code_block, escape, link, markdown, plain

MAX_IMAGE = 512 * 1024
"""Bytes of the largest image that is shown on the page; of a larger one the page says what it is."""

_IMAGES = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
}
"""How a file of each type begins."""


def piece_html(piece: Piece, kind: str) -> str:
    """One piece of a message.

    Args:
        piece: the piece.
        kind: of the message; prose is read as Markdown if it is "assistant", and shown as it was typed else.
    """
    match piece:
        case Prose(text):
            shown = markdown(text) if kind == "assistant" else plain(text)
            return f'<div class="prose" dir="auto">{shown}</div>' if shown else ""
        case Code(text, language):
            return code_block(text, language)
        case Thought(text):
            return fold("thought", "Thoughts", f'<div class="prose" dir="auto">{markdown(text)}</div>')
        case Call(name, arguments, call_id):
            excerpt = _excerpt(arguments)
            return fold("call", _tool_line("Calls", name, excerpt), _arguments(arguments) + _call_id(call_id))
        case Result(name, call_id, pieces, failed):
            return _result(name, call_id, pieces, failed)
        case Attachment():
            return _attachment(piece)
        case _:
            return fold("value", f"<bdi>{escape(piece.kind)}</bdi>", code_block(as_json(piece.value), "JSON"))


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
    short, long = argument_texts(arguments)
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in short.items())
    blocks = "".join(code_block(text, name) for name, text in long.items())
    return (f"<dl>{rows}</dl>" if rows else "") + blocks


def _result(name: str | None, call_id: str | None, pieces: tuple[Piece, ...], failed: bool) -> str:
    texts = [piece.text for piece in pieces if isinstance(piece, Prose | Code)]
    inner = (code_block(one.text) if isinstance(one, Prose) else piece_html(one, "tool") for one in pieces)
    excerpt = " ".join(" ".join(text[:400] for text in texts[:4]).split())[:120] or "nothing" * (not pieces)
    what = f"{'Failed result' if failed else 'Result'}{' of' if name else ''}"
    return fold("result", _tool_line(what, name, excerpt), "".join(inner) + _call_id(call_id))


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
    begins = _IMAGES.get(attachment.media_type)
    return base64.b64encode(data).decode() if begins is not None and begins.match(data) else ""


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} KB" if size >= 1000 else f"{size} B"
