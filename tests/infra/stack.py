"""The stack of infra/template.yaml, deployed into a MiniStack that enforces policies.

Law: what is asked of a stack here is asked of AWS' own interfaces, through boto3; nothing looks into MiniStack.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from uuid import uuid4
from zipfile import ZipFile

import boto3

from tests.infra.template import TEMPLATE
from tests.servers.ministack import ministack

SERVICES = ("s3", "cloudformation", "iam", "sts", "lambda", "logs", "events", "sqs", "cloudwatch")
KEY = "arn:aws:kms:us-east-1:000000000000:key/0a1b2c3d"
REGION = "us-east-1"
_CODE_BUCKET, _CODE_KEY = "s3conv-code", "s3conv-arm64.zip"
_CHAT = "def handler(event, context):\n    return event\n"
"""In place of the chat function's code, which MiniStack's Python could not load: answers with what it was sent."""


@dataclass
class Aws:
    """A MiniStack, and its root's session."""

    endpoint: str
    root: boto3.Session = field(default_factory=lambda: boto3.Session("test", "test", region_name=REGION))
    _clients: dict[str, Any] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        """The root's client of a service."""
        if service not in self._clients:
            make: Any = self.root.client
            self._clients[service] = make(service, endpoint_url=self.endpoint)
        return self._clients[service]

    def close(self) -> None:
        """Close its clients."""
        for client in self._clients.values():
            client.close()

    def deploy(self, name: str, **parameters: str) -> Stack:
        """Create a stack of the template, and wait for it.

        Raises:
            AssertionError: it was not created; says which resource failed, and why.
        """
        cloudformation = self.client("cloudformation")
        given = {"CodeBucket": _CODE_BUCKET, "CodeKey": _CODE_KEY, **parameters}
        cloudformation.create_stack(
            StackName=name,
            TemplateBody=TEMPLATE.read_text(encoding="utf-8"),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
        )
        status = self.settled(name)
        events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
        failed = [
            f"{one['LogicalResourceId']}: {one.get('ResourceStatusReason')}"
            for one in events
            if one["ResourceStatus"].endswith("FAILED")
        ]
        assert status == "CREATE_COMPLETE", (status, failed)
        (found,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
        outputs = {one["OutputKey"]: one["OutputValue"] for one in found["Outputs"]}
        return Stack(self, name, outputs)

    def settled(self, name: str) -> str:
        """A stack's status, once it is a final one. A stack takes 0.3 s; each look waits for an answer."""
        status = ""
        for _ in range(5_000):
            (found,) = self.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
            status = str(found["StackStatus"])
            if not status.endswith("IN_PROGRESS"):
                break
        return status


@dataclass
class Stack:
    """A stack that is there."""

    aws: Aws
    name: str
    outputs: dict[str, str]

    @property
    def bucket(self) -> str:
        return self.outputs["BucketName"]

    @property
    def url(self) -> str:
        return self.outputs["ArchiveUrl"]

    def policy(self, role: str) -> dict[str, Any]:
        """The document of a managed policy, as it was deployed; `role` is "Reader", "Writer" …"""
        iam, arn = self.aws.client("iam"), self.outputs[f"{role}PolicyArn"]
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        document: dict[str, Any] = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
        return document

    def user(self, *policy_arns: str) -> boto3.Session:
        """A session of a new user who may do what these policies say, and nothing else."""
        iam = self.aws.client("iam")
        name = f"{self.name[:20]}-{uuid4().hex}"
        iam.create_user(UserName=name)
        for arn in policy_arns:
            iam.attach_user_policy(UserName=name, PolicyArn=arn)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return boto3.Session(key["AccessKeyId"], key["SecretAccessKey"], region_name=REGION)

    def allow_plain_http(self) -> None:
        """Take the bucket policy away: it allows TLS only, and MiniStack on loopback has none."""
        self.aws.client("s3").delete_bucket_policy(Bucket=self.bucket)


@contextmanager
def serve() -> Iterator[Aws]:
    """A MiniStack with all that the template needs, and a ZIP in a bucket, with `_CHAT` for the chat function."""
    code = BytesIO()
    with ZipFile(code, "w") as file:
        file.writestr("chat.py", _CHAT)
    with ministack(*SERVICES, authorize=True) as url:
        aws = Aws(url)
        aws.client("s3").create_bucket(Bucket=_CODE_BUCKET)
        aws.client("s3").put_object(Bucket=_CODE_BUCKET, Key=_CODE_KEY, Body=code.getvalue())
        yield aws
        aws.close()
