"""The deployment package in the stack of infra/template.yaml: deployed, and invoked through Lambda's own interface.

MiniStack starts each function as a process, with the environment that the template gives it and the credentials of its
role, and refuses what those may not. It has botocore; boto3, which Lambda's runtime has, is packed with the function.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from infra import build
from tests.deployment.package import RUNTIME
from tests.functions.calls import ALICE, BOB, conversation, event, says
from tests.infra.stack import KEY, Aws, Stack, serve


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with serve() as started:
        yield started


@pytest.fixture(scope="module")
def stack(aws: Aws, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """A stack with the package for this machine and this Python."""
    package = tmp_path_factory.mktemp("package") / "package.zip"
    build.build(package, build.architecture_here(), build.python_here())
    (site,) = (RUNTIME.parents[1] / "lib").glob("*/site-packages")
    with zipfile.ZipFile(package, "a") as content:
        for name in ("boto3", "s3transfer"):
            for path in (site / name).rglob("*"):
                if path.is_file() and path.suffix != ".pyc":
                    content.write(path, path.relative_to(site))
    aws.client("s3").create_bucket(Bucket="code")
    aws.client("s3").put_object(Bucket="code", Key="functions.zip", Body=package.read_bytes())
    return aws.deploy(
        "deployed",
        CodeBucket="code",
        CodeKey="functions.zip",
        Architecture=build.architecture_here(),
        KmsKeyArn=KEY,
        Prefix="prod/chats",
    )


def invoke(stack: Stack, function: str, given: object) -> tuple[str | None, Any]:
    """Invoke a function; its error's kind, if it failed, and what it returned."""
    answer = stack.aws.client("lambda").invoke(FunctionName=stack.outputs[function], Payload=json.dumps(given).encode())
    return answer.get("FunctionError"), json.loads(answer["Payload"].read())


def test_the_functions_of_the_package_serve_an_archive(stack: Stack) -> None:
    def chat(*request: Any) -> tuple[int, Any]:
        failed, answer = invoke(stack, "ChatFunctionName", event(*request))
        assert failed is None, answer
        return answer["statusCode"], json.loads(answer.get("body", "null"))

    # The bucket allows TLS only, also to a role of the stack: so it is with a role's credentials that they run.
    failed, said = invoke(stack, "MaintenanceFunctionName", {})
    assert failed == "Unhandled"
    assert "get_object was answered 403 AccessDenied" in said["errorMessage"]
    assert "explicit deny in a resource-based policy" in said["errorMessage"]
    stack.allow_plain_http()

    path = conversation("first", "messages")
    assert chat(ALICE, "POST", path, says("too early"))[0] == 503
    failed, done = invoke(stack, "MaintenanceFunctionName", {})
    assert (failed, done["finished"]) == (None, True)
    assert chat(ALICE, "POST", path, says("Hello"))[0] == 201
    assert chat(ALICE, "POST", path, says("And now?"))[0] == 201
    assert chat(BOB, "GET", conversation("first"))[0] == 404
    failed, done = invoke(stack, "MaintenanceFunctionName", {})
    assert (failed, done["folded"], done["finished"]) == (None, 2, True)
    status, listed = chat(ALICE, "GET", "/conversations")
    assert (status, [one["conversation_id"] for one in listed["conversations"]]) == (200, ["first"])
    status, shown = chat(ALICE, "GET", conversation("first"))
    assert (status, [one["content"] for one in shown["messages"]]) == (200, ["Hello", "And now?"])
    assert chat(ALICE, "DELETE", conversation("first")) == (204, None)
    assert chat(ALICE, "GET", conversation("first"))[0] == 404
