"""What all pages of an HTML export have in common: the frame around their content, and how they say a few things.

Law: a page's policy lets a browser run only our script and apply only our style sheet, both within the page, and load
nothing. It is worked out from what is in the page, so that the two cannot differ.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from functools import cache
from importlib.resources import files

from s3conv.exchange.prose import escape
from s3conv.model.message import as_utc

PAGE_END = "</body>\n</html>\n"


def page_begin(title: str, name: str) -> str:
    """Everything up to the content of a page's body; `PAGE_END` comes after it.

    Args:
        title: of the page.
        name: of the page's script among the assets, and the class of its body.
    """
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


def short_time(time: datetime, with_day: bool = True) -> str:
    """A `time` element: in UTC and to the minute, with the whole time as it is kept in its tooltip."""
    exact, shown = time.isoformat(), as_utc(time)
    # Not strftime: it writes years before 1000 without their zeros on some systems.
    day = f"{shown.year:04}-{shown.month:02}-{shown.day:02} " if with_day else ""
    return f'<time datetime="{exact}" title="{exact}">{day}{shown.hour:02}:{shown.minute:02}</time>'


def counted(number: int, what: str, plural: str = "") -> str:
    """ "1 message", "1,000 messages"."""
    return f"{number:,} {what if number == 1 else plural or what + 's'}"


def fold(name: str, summary: str, inner: str) -> str:
    """Something to open; `summary` and `inner` are HTML."""
    return f'<details class="{name}"><summary>{summary}</summary>{inner}</details>'
