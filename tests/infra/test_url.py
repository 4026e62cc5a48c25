"""Who may call the chat function: with the caller's policy, through its URL, and in no other way.

The requests are signed by the example of infra/README.md. MiniStack knows the URL by the name of its host, which leads
nowhere: they are sent to its address under that name. It does not tell a function who called, as AWS does; what the
chat function makes of that is in `tests/functions`.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.infra.stack import Aws, Stack
from tests.infra.template import TEMPLATE

Call = Callable[..., bytes]


@pytest.fixture
def call(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The function of the README."""
    (example,) = re.findall(
        r"^```python\n(.*?^def call\(.*?)^```$", TEMPLATE.with_name("README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    urlopen = urllib.request.urlopen

    def reaching(request: urllib.request.Request) -> Any:
        there = urlsplit(request.full_url)
        request.add_header("Host", there.netloc)
        request.full_url = f"{aws.endpoint}{there.path}?{there.query}"
        return urlopen(request, timeout=60)

    monkeypatch.setattr(urllib.request, "urlopen", reaching)
    defined: dict[str, Any] = {}
    exec(example, defined)
    found: Call = defined["call"]
    return found


def sign_as(monkeypatch: pytest.MonkeyPatch, session: boto3.Session) -> None:
    """Let new sessions find the credentials of this one, as a caller's machine has them."""
    keys = session.get_credentials()
    assert keys is not None
    assert keys.access_key is not None
    assert keys.secret_key is not None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys.secret_key)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)


def test_who_has_the_callers_policy_reaches_the_function(
    stack: Stack, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_as(monkeypatch, stack.user(stack.outputs["CallerPolicyArn"]))
    body = {"messages": [{"role": "user", "content": "Grüße"}]}
    for method, path, query, sent in (
        ("POST", "conversations/first/messages", "", body),
        ("GET", "conversations", "user_id=u%201&cursor=a%2Bb", None),
    ):
        event = json.loads(call(method, f"{stack.outputs['ChatUrl']}{path}?{query}".rstrip("?"), sent))
        assert event["requestContext"]["http"]["method"] == method
        assert (event["rawPath"], event["rawQueryString"]) == (f"/{path}", query)
        assert sent is None or json.loads(event["body"]) == sent


def test_nobody_calls_without_the_callers_policy(stack: Stack, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ("Reader", "Writer", "Maintainer", "Exporter"):
        sign_as(monkeypatch, stack.user(stack.outputs[f"{role}PolicyArn"]))
        with pytest.raises(HTTPError, match="403") as refused:
            call("GET", f"{stack.outputs['ChatUrl']}conversations")
        refused.value.close()
    with pytest.raises(HTTPError, match="403") as refused:
        urllib.request.urlopen(urllib.request.Request(f"{stack.outputs['ChatUrl']}conversations"))
    refused.value.close()


def test_nobody_invokes_the_function_past_its_url(stack: Stack) -> None:
    """There the event, and with it the tenant, would be the caller's to write."""
    forged = {"requestContext": {"authorizer": {"iam": {"userArn": "arn:aws:iam::000000000000:user/alice"}}}}
    for role in ("Caller", "Reader", "Writer", "Maintainer", "Exporter"):
        client = stack.user(stack.outputs[f"{role}PolicyArn"]).client("lambda", endpoint_url=stack.aws.endpoint)
        for function in ("ChatFunctionName", "MaintenanceFunctionName"):
            with pytest.raises(ClientError, match="AccessDenied"):
                client.invoke(FunctionName=stack.outputs[function], Payload=json.dumps(forged).encode())
        client.close()
