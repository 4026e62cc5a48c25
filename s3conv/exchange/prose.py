"""Texts as HTML: what a model wrote in Markdown, and what anybody wrote as plain text.

Law: the elements and attributes that come out are those written down here, whatever the text holds. No HTML of the
text's own is ever markup, nothing is loaded, links go to http, https and mailto only. No letter of the text is lost:
what the Markdown parser leaves out (it gives up on deep nesting) makes the whole text a plain one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.token import Token

MAX_MARKDOWN = 100_000
"""Characters of the longest text that is read as Markdown: some texts take the parser quadratic time."""

MAX_BRACKETS = 2_000
"""Opening brackets in such a text, of which each may make the parser look for its end."""

BLOCK = 8_000
"""Characters of plain text that a browser lays out at once; what is not in view of a longer one costs nothing."""

_UNSEEN = {code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)} | {0x7F: "\u2421"}
_UNSEEN |= dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
_ESCAPES = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord('"'): "&quot;", ord("'"): "&#39;"}
_SPECIAL = re.compile("[&<>\"'\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_NOT_LETTERS = re.compile(r"[\W_]+")
_ALLOWED = re.compile(r"(?:https?://|mailto:)[^\s]", re.IGNORECASE)
_BARE_URL = re.compile(r"https?://[^\s<>\"'`]{1,2000}", re.IGNORECASE)
_FENCE = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)
_CLOSERS = {")": "(", "]": "[", "}": "{"}

_BLOCK_TAGS = frozenset(("p", "ul", "ol", "li", "blockquote", "table", "thead", "tbody", "tr", "th", "td"))
_INLINE_TAGS = frozenset(("em", "strong", "s"))
_HEADINGS = {"h1": "h3", "h2": "h4", "h3": "h5", "h4": "h6", "h5": "h6", "h6": "h6"}
"""A page's own headings are h1 and h2."""
_ALIGNED = {"text-align:right": ' class="end"', "text-align:center": ' class="middle"'}


def printable(text: str) -> str:
    """The text with a sign for each control character and lone surrogate; lines end in newlines."""
    if not _UNPRINTABLE.search(text):
        return text
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_UNSEEN)


def escape(text: str) -> str:
    """The text for an element's content or a quoted attribute, printable."""
    return printable(text).translate(_ESCAPES) if _SPECIAL.search(text) else text


def is_readable(text: str) -> bool:
    """Whether the Markdown parser reads the text in good time."""
    return len(text) <= MAX_MARKDOWN and text.count("[") <= MAX_BRACKETS


def link(url: str, inner: str, title: str = "") -> str:
    """A link around HTML; only the HTML, if no link may go there."""
    return f"{_link_open(url, title)}{inner}</a>" if _ALLOWED.match(url) else inner


def _link_open(url: str, title: str) -> str:
    titled = f' title="{escape(title)}"' if title else ""
    return f'<a href="{escape(url)}" rel="noopener noreferrer"{titled}>'


def code_block(text: str, language: str = "") -> str:
    """A text in a fixed pitch, with its language and a button that copies it."""
    return (
        f'<figure class="code"><figcaption><span>{escape(language)}</span>'
        f'<button type="button" class="copy">Copy</button></figcaption>'
        f'<pre dir="ltr"><code>{_in_blocks(text)}</code></pre></figure>'
    )


def plain(text: str) -> str:
    """A text with its line breaks and spaces; fenced code in it is a code block, and addresses are links."""
    text = printable(text)
    if not _FENCE.search(text) or len(text) > MAX_MARKDOWN:
        return _plain(text)
    lines = text.split("\n")
    made, done = [], 0
    for token in _fences().parse(text):
        if token.type == "fence" and token.map is not None and token.level == 0:
            begin, end = token.map
            made += [_plain("\n".join(lines[done:begin])), code_block(token.content, token.info.strip())]
            done = end
    return "".join([*made, _plain("\n".join(lines[done:]))])


def markdown(text: str) -> str:
    """A text in Markdown: CommonMark with tables, without HTML, images as links, each line break kept."""
    text = printable(text)
    if not is_readable(text):
        return _plain(text)
    tokens = _commonmark().parse(text)
    if _letters(text) != sum(_letters(token.content) + _letters(token.info) for token in tokens):
        return _plain(text)
    return "".join(_render(tokens))


def _plain(text: str) -> str:
    text = text.strip("\n")
    if not text.strip():
        return ""
    return f'<div class="plain">{_in_blocks(text, linked=True)}</div>'


def _in_blocks(text: str, linked: bool = False) -> str:
    """Escaped; a long text in blocks that end at a line break where they can."""
    show = _linked if linked else escape
    if len(text) <= 2 * BLOCK:
        return show(text)
    made, begin = [], 0
    while begin < len(text):
        end = min(begin + BLOCK, len(text))
        if end < len(text):
            end = text.rfind("\n", begin, end) + 1 or end
        made.append(f'<span class="block">{show(text[begin:end])}</span>')
        begin = end
    return "".join(made)


def _linked(text: str) -> str:
    made, done = [], 0
    for found in _BARE_URL.finditer(text):
        url = _without_closing(found.group())
        made += [escape(text[done : found.start()]), link(url, escape(url))]
        done = found.start() + len(url)
    return "".join([*made, escape(text[done:])])


def _without_closing(url: str) -> str:
    """The URL less what ends the sentence or bracket that it stands in."""
    while url[-1] in ".,;:!?*_~" or (url[-1] in _CLOSERS and url.count(_CLOSERS[url[-1]]) < url.count(url[-1])):
        url = url[:-1]
    return url


def _letters(text: str) -> int:
    return len(_NOT_LETTERS.sub("", text))


@cache
def _commonmark() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True})
    # A definition ("[1]: https://…") is a line of text here: else it would not be shown.
    parser.enable(["table", "strikethrough"]).disable("reference")
    parser.validateLink = lambda url: _ALLOWED.match(url) is not None  # type: ignore[method-assign]  # its documented hook
    return parser


@cache
def _fences() -> MarkdownIt:
    return MarkdownIt("zero").enable("fence")


def _render(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        tag = _HEADINGS.get(token.tag, token.tag)
        if token.type == "inline":
            yield from _render_inline(token.children or ())
        elif token.type in ("fence", "code_block"):
            yield code_block(token.content.removesuffix("\n"), token.info.strip())
        elif token.type == "hr":
            yield "<hr>"
        elif token.hidden or not (tag in _BLOCK_TAGS or token.tag in _HEADINGS):
            continue
        elif token.nesting < 0:
            yield f"</{tag}></div>" if tag == "table" else f"</{tag}>"
        elif tag == "table":
            yield '<div class="table"><table>'
        elif tag == "ol" and isinstance(start := token.attrGet("start"), int):
            yield f'<ol start="{start}">'
        else:
            yield f"<{tag}{_ALIGNED.get(str(token.attrGet('style')), '')}>"


def _render_inline(tokens: Sequence[Token]) -> Iterator[str]:
    within_link = False
    for token in tokens:
        if token.type == "text":
            yield escape(token.content) if within_link else _linked(token.content)
        elif token.type == "code_inline":
            yield f"<code>{escape(token.content)}</code>"
        elif token.type in ("softbreak", "hardbreak"):
            yield "<br>"
        elif token.type == "image":
            url, title = str(token.attrs["src"]), str(token.attrs.get("title", ""))
            shown = f"Image: {escape(token.content or url)}" if url else escape(f"![{token.content}]()")
            yield shown if within_link else link(url, shown, title)
        elif token.type == "link_open" and (url := str(token.attrs["href"])):
            within_link = True
            yield _link_open(url, str(token.attrs.get("title", "")))
        elif token.type == "link_close" and within_link:  # a link to nowhere was not opened
            within_link = False
            yield "</a>"
        elif token.tag in _INLINE_TAGS:
            yield f"<{'/' if token.nesting < 0 else ''}{token.tag}>"
