"""Callers of the chat function, the events that their requests become, and the function as a fresh process has it."""

from __future__ import annotations

import base64
import importlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from types import ModuleType
from typing import Any
from urllib.parse import quote

_numbers = count(1)

ALICE = "arn:aws:iam::111122223333:user/alice"
BOB = "arn:aws:iam::111122223333:user/bob"


@dataclass
class Invocation:
    """The second argument of a handler."""

    seconds: float = 30.0

    def get_remaining_time_in_millis(self) -> int:
        return int(self.seconds * 1000)


@dataclass(frozen=True)
class Answer:
    """What a caller gets."""

    status: int
    body: Any
    headers: Mapping[str, str]
    text: str


def conversation(conversation_id: str, *more: str) -> str:
    """The path of a conversation, or of something below it."""
    return "/".join(["/conversations", quote(conversation_id, safe=""), *more])


def event(
    caller: str,
    method: str,
    path: str,
    body: object = None,
    query: str = "",
    *,
    request_id: str | None = None,
    headers: Mapping[str, str] | None = None,
    encoded: bool = False,
    stage: str = "$default",
    cognito: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """An event as a function URL with IAM authorization makes it. `body`: text as it is, else its JSON."""
    text = body if isinstance(body, str) else None if body is None else json.dumps(body)
    if text is not None and encoded:
        text = base64.b64encode(text.encode()).decode()
    iam = {
        "accessKey": "AKIDEXAMPLE",
        "accountId": caller.split(":")[4],
        "callerId": "AIDEXAMPLE",
        "cognitoIdentity": cognito,
        "principalOrgId": None,
        "userArn": caller,
        "userId": "AIDEXAMPLE",
    }
    request_id = request_id or f"request-{next(_numbers)}"
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"content-type": "application/json", "host": "example", **(headers or {})},
        "requestContext": {
            "accountId": "999988887777",
            "authorizer": {"iam": iam},
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1"},
            "requestId": request_id,
            "stage": stage,
        },
        "isBase64Encoded": encoded,
        **({"body": text} if text is not None else {}),
    }


def says(content: Any, role: str = "user", **more: Any) -> dict[str, Any]:
    """A body that appends one message."""
    return {"messages": [{"role": role, "content": content}], **more}


@dataclass
class Chat:
    """The chat function as one process has it."""

    module: Any
    invocation: Invocation = field(default_factory=Invocation)

    def __call__(
        self, caller: str, method: str, path: str, body: object = None, query: str = "", **more: Any
    ) -> Answer:
        return self.handle(event(caller, method, path, body, query, **more))

    def handle(self, given: object) -> Answer:
        """What the handler answers to an event, checked for what every answer has."""
        found = self.module.handler(given, self.invocation)
        json.dumps(found)  # the runtime sends it as JSON
        assert set(found) <= {"statusCode", "headers", "body"}
        text = found.get("body", "")
        if text:
            assert found["headers"]["content-type"] == "application/json"
        return Answer(found["statusCode"], json.loads(text) if text else None, found["headers"], text)

    def messages(self, caller: str, conversation_id: str, query: str = "") -> list[Any]:
        """What the messages of a conversation say."""
        found = self(caller, "GET", conversation(conversation_id), query=query)
        assert found.status == 200, found.text
        return [message["content"] for message in found.body["messages"]]


def fresh(name: str) -> ModuleType:
    """A function's module as a new process imports it: with an archive, a client and caches of its own."""
    for module in (name, "runtime"):
        sys.modules.pop(module, None)
    return importlib.import_module(name)
