"""The two functions on what was deployed: with the environment that the stack gives them, and what their roles allow.

They run in this process, each as a new one would import it; MiniStack answers 403 to what a role may not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import boto3
import pytest

from tests.functions.calls import ALICE, BOB, Chat, Invocation, conversation, fresh, says
from tests.infra.policies import Call
from tests.infra.recording import record
from tests.infra.stack import KEY, REGION, Aws, Stack
from tests.infra.template import load, of_type


@dataclass
class Runtime:
    """Starts functions of a stack as Lambda does: environment, credentials of the role, and a process of its own."""

    stack: Stack
    patched: pytest.MonkeyPatch
    calls: list[Call] = field(default_factory=list)
    clients: ExitStack = field(default_factory=ExitStack)

    def start(self, output: str) -> ModuleType:
        configuration = self.stack.aws.client("lambda").get_function_configuration(
            FunctionName=self.stack.outputs[output]
        )
        role = configuration["Role"].rpartition("/")[2]
        attached = self.stack.aws.client("iam").list_attached_role_policies(RoleName=role)["AttachedPolicies"]
        keys = self.stack.user(*(one["PolicyArn"] for one in attached)).get_credentials()
        assert keys is not None
        for name, value in {
            **configuration["Environment"]["Variables"],
            "AWS_LAMBDA_FUNCTION_NAME": configuration["FunctionName"],
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": keys.access_key,
            "AWS_SECRET_ACCESS_KEY": keys.secret_key,
            "AWS_ENDPOINT_URL": self.stack.aws.endpoint,
        }.items():
            assert value is not None
            self.patched.setenv(name, value)
        self.patched.setattr(boto3, "client", self._client)
        module, _ = configuration["Handler"].split(".")
        return fresh(module)

    def _client(self, service: str, **options: Any) -> Any:
        """What `boto3.client` gives to a new process, with its requests noted."""
        make: Any = boto3.Session().client
        client = make(service, **options)
        record(client, self.calls)
        self.clients.callback(client.close)
        return client


@pytest.fixture
def runtime(request: pytest.FixtureRequest, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """On a stack of its own, with a key, whose archive lies two folders deep and is not made yet."""
    stack = aws.deploy(request.function.__name__.replace("_", "-")[:40], KmsKeyArn=KEY, Prefix="prod/chats")
    stack.allow_plain_http()
    started = Runtime(stack, monkeypatch)
    with started.clients:
        yield started


def test_the_functions_serve_an_archive_from_its_first_run_on(runtime: Runtime) -> None:
    path = conversation("first", "messages")
    chat = Chat(runtime.start("ChatFunctionName"))
    assert chat(ALICE, "POST", path, says("too early")).status == 503

    maintenance = runtime.start("MaintenanceFunctionName")
    assert maintenance.handler({}, Invocation())["finished"]
    # `create` looks for archives around the new one, and passes over what it may not read.
    assert [one.name for one in runtime.calls if one.status == 403] == [
        "HeadObject prod/s3conv.json -> 403",
        "HeadObject s3conv.json -> 403",
    ]
    runtime.calls.clear()
    chat = Chat(runtime.start("ChatFunctionName"))
    assert chat(ALICE, "GET", conversation("first")).status == 404
    for text in ("Hello", "And now?"):
        assert chat(ALICE, "POST", path, says(text), headers={"idempotency-key": text}).status == 201
    elsewhere = Chat(runtime.start("ChatFunctionName"))
    assert elsewhere(ALICE, "POST", path, says("Hello"), headers={"idempotency-key": "Hello"}).status == 200
    assert elsewhere(ALICE, "POST", path, says("Who else?")).status == 201
    # What the first process remembers is not the newest now.
    assert chat(ALICE, "POST", path, says("What else?")).status == 201
    assert elsewhere.messages(ALICE, "first") == ["Hello", "And now?", "Who else?", "What else?"]
    assert chat(BOB, "POST", conversation("bobs", "messages"), says("Hi")).status == 201
    assert chat(BOB, "GET", conversation("first")).status == 404
    for _ in range(2):
        listed = elsewhere(ALICE, "GET", "/conversations")
        assert [one["conversation_id"] for one in listed.body["conversations"]] == ["first"]
        maintenance = runtime.start("MaintenanceFunctionName")  # and once more from what was folded
        assert maintenance.handler({}, Invocation())["pending"] == 0
    assert elsewhere(ALICE, "DELETE", conversation("first")).status == 204
    assert elsewhere(ALICE, "GET", "/conversations").body["conversations"] == []
    assert [one.name for one in runtime.calls if one.status == 403] == []
    written = [one.parameters for one in runtime.calls if one.operation == "PutObject"]
    assert {one["SSEKMSKeyId"] for one in written} == {KEY}


def test_alarms_watch_metrics_that_the_functions_write(runtime: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    function = runtime.start("MaintenanceFunctionName")
    capsys.readouterr()
    function.handler({}, Invocation())
    written = set()
    for line in map(json.loads, capsys.readouterr().out.splitlines()):
        for one in line["_aws"]["CloudWatchMetrics"]:
            for dimensions in one["Dimensions"]:
                values = tuple((name, line[name]) for name in dimensions)
                written |= {(one["Namespace"], metric["Name"], values) for metric in one["Metrics"]}
    watched = {
        (alarm["Namespace"], alarm["MetricName"], ((dimension["Name"], runtime.stack.outputs[f"{of}Name"]),))
        for alarm in of_type(load(), "AWS::CloudWatch::Alarm").values()
        for dimension in alarm["Dimensions"]
        for of in [dimension["Value"].get("Ref")]
        if alarm["Namespace"] == "s3conv"
    }
    assert len(watched) == 2
    assert watched <= written
