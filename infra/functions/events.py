"""HTTP as a function sees it: events in the payload format 2.0 become a `Request`, answers become what is returned.

Law: pure, and strict. What cannot be understood in one way only is refused with a status and a sentence (`Refused`):
a query key that is given twice, a percent sign that is none, a body that is not JSON that can be stored. The format is
that of Lambda's function URLs and of API Gateway's HTTP APIs:
https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import parse_qsl, unquote

MAX_BODY = 4 * 1024 * 1024
"""Most bytes of a body that is taken. Lambda takes 6 MiB with all that an event has beside it."""

MAX_ANSWER = 5_900_000
"""Most bytes of an answer. Lambda's own limit is 6 MiB, and its error says nothing to the caller."""

MAX_KEY = 200
"""Longest idempotency key, in characters."""


_STRAY_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")


class Refused(Exception):
    """A request that gets an answer without being carried out, or not to its end: a status and what was expected."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. Names of headers are in lower case; `path` has its parts, decoded."""

    method: str
    path: tuple[str, ...]
    request_id: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def parameters(self, allowed: Collection[str]) -> Mapping[str, str]:
        """The query, if it has no other keys than these.

        Raises:
            Refused: it has.
        """
        if unknown := sorted(set(self.query).difference(allowed)):
            expected = f"expected {', '.join(allowed)}" if allowed else "none is expected here"
            raise Refused(400, f"the query parameter {unknown[0][:60]!a} is not known: {expected}")
        return self.query

    def json(self) -> Any:
        """The body's JSON value.

        Raises:
            Refused: it is not JSON, too large, or of another type.
        """
        content_type = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            raise Refused(415, f"expected a body of application/json, found {content_type[:60]!a}")
        if len(self.body) > MAX_BODY:
            raise Refused(413, f"expected a body of at most {MAX_BODY:,} bytes, found {len(self.body):,}")
        try:
            return json.loads(self.body.decode(), parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise Refused(400, "the body is not JSON in UTF-8, or nested too deeply") from None

    def idempotency_key(self) -> str:
        """What a repeat of this request has, too: the header `Idempotency-Key`, else the id of the request."""
        key = self.headers.get("idempotency-key", self.request_id)
        if not 0 < len(key) <= MAX_KEY or not key.isascii() or not key.isprintable():
            raise Refused(400, f"Idempotency-Key: expected 1 to {MAX_KEY} printable ASCII characters")
        return key


def read_request(event: object) -> Request:
    """Read an event.

    Raises:
        Refused: it is not one of payload format 2.0, or its path, query or body cannot be decoded.
    """
    if not isinstance(event, dict) or event.get("version") != "2.0":
        raise Refused(400, "expected an HTTP request of payload format 2.0, as function URLs send them")
    try:
        context = event["requestContext"]
        body = event.get("body") or ""
        return Request(
            method=context["http"]["method"],
            path=_path(event["rawPath"], context.get("stage", "$default")),
            request_id=context["requestId"],
            query=_query(event.get("rawQueryString") or ""),
            headers={name.lower(): value for name, value in (event.get("headers") or {}).items()},
            body=base64.b64decode(body, validate=True) if event.get("isBase64Encoded") else body.encode(),
        )
    except (KeyError, TypeError, AttributeError):
        raise Refused(400, "the event has not the fields of payload format 2.0") from None
    except ValueError:  # binascii.Error and UnicodeError are such
        raise Refused(400, "the request cannot be decoded: expected UTF-8, percent-encoded or in base64") from None


def _path(raw: str, stage: str) -> tuple[str, ...]:
    """The parts of a path. They are divided before they are decoded: a slash within an id is sent as %2F."""
    if stage != "$default" and (raw == f"/{stage}" or raw.startswith(f"/{stage}/")):
        raw = raw[len(stage) + 1 :]
    _check_percent_signs(raw)
    return tuple(unquote(part, errors="strict") for part in raw.removeprefix("/").split("/"))


def _query(raw: str) -> dict[str, str]:
    raw = raw.removeprefix("?")
    _check_percent_signs(raw)
    pairs = parse_qsl(raw, keep_blank_values=True, strict_parsing=bool(raw), errors="strict", max_num_fields=20)
    query = dict(pairs)
    if len(query) < len(pairs):
        raise Refused(400, "a query parameter is given twice: expected each once")
    return query


def _check_percent_signs(raw: str) -> None:
    if _STRAY_PERCENT.search(raw):
        raise ValueError("a percent sign that begins no byte")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def answer(status: int, value: object = None, **headers: str) -> dict[str, Any]:
    """What a function returns: JSON, or no body for None.

    Raises:
        Refused: the answer is larger than what Lambda passes on.
    """
    sent = {name.replace("_", "-"): text for name, text in headers.items()}
    found: dict[str, Any] = {"statusCode": status, "headers": sent}
    if value is not None:
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if not can_be_sent(body, MAX_ANSWER):
            raise Refused(413, f"the answer has more than {MAX_ANSWER:,} bytes: ask for less, as with ?last=20")
        sent["content-type"] = "application/json"
        found["body"] = body
    return found


def can_be_sent(text: str, most: int) -> bool:
    """Whether JSON takes at most so many bytes of an answer.

    Lambda measures the answer as JSON once more: with this text as one string in it. There a quotation mark in what is
    said takes four bytes.
    """
    return len(text) <= most // 4 or len(json.dumps(text, ensure_ascii=False).encode(errors="surrogatepass")) <= most


def refusal(refused: Refused) -> dict[str, Any]:
    """The answer to a request that was refused."""
    return answer(refused.status, {"error": str(refused)}, **refused.headers)
