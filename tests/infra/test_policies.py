"""The policies of the template: each role does all of its work with its own, nothing outside of it, and needs every
part of it.

Two judges have to agree: MiniStack, which answers 403 to what a policy does not allow, and `policies`, which also knows
KMS and when a missing key is a 404, and can leave out parts of a policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from s3conv import Archive
from tests.infra.policies import Call, Need, Policy, allows, needs, without
from tests.infra.recording import record
from tests.infra.roles import ROLES, Opened, chat
from tests.infra.stack import KEY, REGION, Aws, Stack


@dataclass
class Role:
    """A role that has done its work: its policy, the requests of that work, and a client that goes on noting them."""

    name: str
    policy: Policy
    stack: Stack
    client: Any
    calls: list[Call]
    work: list[Call]

    def allowed(self, call: Call, policy: Policy | None = None) -> bool:
        return all(allows(policy or self.policy, need) for need in needs(call, KEY, REGION))


@pytest.fixture(scope="module", params=list(ROLES))
def role(request: pytest.FixtureRequest, aws: Aws) -> Iterator[Role]:
    """Each role, in a stack of its own, with a key."""
    name: str = request.param
    stack = aws.deploy(name.lower(), KmsKeyArn=KEY)
    stack.allow_plain_http()
    session = stack.user(stack.outputs[f"{name}PolicyArn"])
    client = session.client("s3", endpoint_url=aws.endpoint)
    calls = record(client)
    ROLES[name](Opened(stack.url, stack.outputs["ExportUrl"], aws.client("s3"), client, KEY))
    yield Role(name, stack.policy(name), stack, client, calls, list(calls))
    client.close()


def test_every_request_of_its_work_is_allowed(role: Role) -> None:
    refused = [call.name for call in role.work if call.status == 403]
    # `create` looks for archives around the new one, and passes over what it may not read.
    assert refused == (["HeadObject s3conv.json -> 403"] if role.name == "Maintainer" else [])
    assert [call.name for call in role.work if role.allowed(call) == (call.status == 403)] == []


def test_every_part_of_its_policy_is_needed(role: Role) -> None:
    parts = list(without(role.policy))
    assert len(parts) >= len(role.policy["Statement"])
    granted = [call for call in role.work if call.status != 403]
    superfluous = [name for name, less in parts if all(role.allowed(call, less) for call in granted)]
    assert superfluous == []


def test_conditions_are_needed(role: Role) -> None:
    """Without its condition a statement would allow to list the whole bucket, or to use the key for anything."""
    for statement in role.policy["Statement"]:
        if "Condition" not in statement:
            continue
        bare = {"Statement": [{name: value for name, value in statement.items() if name != "Condition"}]}
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        for action in actions:
            need = Need(action, statement["Resource"])
            assert allows(bare, need)
            assert not allows(role.policy, need)


def test_nothing_else_is_allowed(role: Role) -> None:
    root = role.stack.aws.client("s3")
    bucket, root_of = role.stack.bucket, "archive"
    document = root.list_objects_v2(Bucket=bucket, Prefix=f"{root_of}/conversations/", MaxKeys=1)["Contents"][0]["Key"]
    versions = root.list_object_versions(Bucket=bucket, Prefix=document)["Versions"]
    root.put_object(Bucket=bucket, Key="archive2/s3conv.json", Body=b"a neighbour's")
    other = f"{bucket}-other"
    root.create_bucket(Bucket=other)
    root.put_object(Bucket=other, Key=f"{root_of}/s3conv.json", Body=b"another's")
    client = role.client
    tried = len(role.calls)
    for request in [
        *_outside_of_the_archive(client, bucket, other),
        *_never(client, bucket, root_of, document, versions[0]["VersionId"]),
        *_beyond_the_role(client, bucket, root_of, document)[role.name],
    ]:
        with pytest.raises(ClientError) as refused:
            request()
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert [call.name for call in role.calls[tried:] if role.allowed(call)] == []
    assert root.list_object_versions(Bucket=bucket, Prefix=document)["Versions"] == versions


Requests = list[Callable[[], object]]


def _outside_of_the_archive(client: Any, bucket: str, other: str) -> Requests:
    return [
        lambda: client.get_object(Bucket=bucket, Key="s3conv.json"),
        lambda: client.get_object(Bucket=bucket, Key="archive2/s3conv.json"),
        lambda: client.put_object(Bucket=bucket, Key="archive2/conversations/00/x.json.zst", Body=b""),
        lambda: client.put_object(Bucket=bucket, Key="archive", Body=b""),
        lambda: client.put_object(Bucket=bucket, Key="conversations/00/x.json.zst", Body=b""),
        lambda: client.delete_object(Bucket=bucket, Key="archive2/s3conv.json"),
        lambda: client.list_objects_v2(Bucket=bucket),
        lambda: client.list_objects_v2(Bucket=bucket, Prefix=""),
        lambda: client.list_objects_v2(Bucket=bucket, Prefix="archive"),
        lambda: client.list_objects_v2(Bucket=bucket, Prefix="archive/"),
        lambda: client.list_objects_v2(Bucket=bucket, Prefix="archive2/"),
        lambda: client.get_object(Bucket=other, Key="archive/s3conv.json"),
        lambda: client.put_object(Bucket=other, Key="archive/index/log/0000/x.json.zst", Body=b""),
        lambda: client.list_objects_v2(Bucket=other, Prefix="archive/index/log/"),
    ]


def _never(client: Any, bucket: str, root: str, document: str, version: str) -> Requests:
    """What nobody may: destroy a document or a version, and change the bucket."""
    rule = {"ID": "all", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}
    return [
        lambda: client.delete_object(Bucket=bucket, Key=document),
        lambda: client.delete_object(Bucket=bucket, Key=document, VersionId=version),
        lambda: client.delete_object(Bucket=bucket, Key=f"{root}/index/manifest.json"),
        lambda: client.delete_object(Bucket=bucket, Key=f"{root}/s3conv.json"),
        lambda: client.get_object(Bucket=bucket, Key=document, VersionId=version),
        lambda: client.list_object_versions(Bucket=bucket, Prefix=f"{root}/"),
        lambda: client.put_bucket_policy(Bucket=bucket, Policy="{}"),
        lambda: client.delete_bucket_policy(Bucket=bucket),
        lambda: client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"}),
        lambda: client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]}),
        lambda: client.delete_bucket(Bucket=bucket),
    ]


def _beyond_the_role(client: Any, bucket: str, root: str, document: str) -> dict[str, Requests]:
    """What another role may."""
    put_document: Requests = [lambda: client.put_object(Bucket=bucket, Key=document, Body=b"")]
    put_intent: Requests = [lambda: client.put_object(Bucket=bucket, Key=f"{root}/index/log/0/x.json.zst", Body=b"")]
    put_index: Requests = [
        lambda: client.put_object(Bucket=bucket, Key=f"{root}/index/manifest.json", Body=b""),
        lambda: client.put_object(Bucket=bucket, Key=f"{root}/index/segments/x.jsonl.zst", Body=b""),
        lambda: client.delete_object(Bucket=bucket, Key=f"{root}/index/segments/x.jsonl.zst"),
        lambda: client.put_object(Bucket=bucket, Key=f"{root}/s3conv.json", Body=b""),
    ]
    drop_intent: Requests = [lambda: client.delete_object(Bucket=bucket, Key=f"{root}/index/log/0/x.json.zst")]
    put_export: Requests = [lambda: client.put_object(Bucket=bucket, Key=f"{root}-exports/all/x.jsonl", Body=b"")]
    list_documents: Requests = [
        lambda: client.list_objects_v2(Bucket=bucket, Prefix=f"{root}/conversations/"),
        lambda: client.list_objects_v2(Bucket=bucket, Prefix=f"{root}/conversations/00/"),
    ]
    read_index: Requests = [
        lambda: client.list_objects_v2(Bucket=bucket, Prefix=f"{root}/index/log/"),
        lambda: client.get_object(Bucket=bucket, Key=f"{root}/index/manifest.json"),
    ]
    return {
        "Reader": [*put_document, *put_intent, *put_index, *drop_intent, *put_export, *list_documents],
        "Writer": [*put_index, *put_export, *list_documents, *read_index],
        "Maintainer": [*put_document, *put_intent, *put_export],
        "Exporter": [*put_document, *put_intent, *put_index, *drop_intent],
    }


def test_without_a_key_the_policies_are_the_same_less_the_key(aws: Aws, stack: Stack) -> None:
    keyed = aws.deploy("keyed", KmsKeyArn=KEY)
    for name in ROLES:
        with_key, without_key = keyed.policy(name)["Statement"], stack.policy(name)["Statement"]
        of_key = [one for one in with_key if KEY in one["Resource"]]
        assert len(of_key) == 1
        named = str([one for one in with_key if one not in of_key])
        assert named.replace(keyed.bucket, stack.bucket) == str(without_key)
        assert "kms" not in str(without_key)


@pytest.mark.parametrize("key", [KEY, ""], ids=["another key now", "none now"])
def test_what_former_keys_have_encrypted_can_be_read_and_nothing_is_written_with_them(aws: Aws, key: str) -> None:
    former = [f"{KEY}-before", f"{KEY}-long-before"]
    stack = aws.deploy(f"former-{len(key)}", KmsKeyArn=key, FormerKmsKeyArns=",".join(former))
    via = {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}
    for name in ROLES:
        policy = stack.policy(name)
        for arn in former:
            assert allows(policy, Need("kms:Decrypt", arn, via))
            assert not allows(policy, Need("kms:Decrypt", arn))
            assert not allows(policy, Need("kms:GenerateDataKey", arn, via))
        assert allows(policy, Need("kms:Decrypt", KEY, via)) == bool(key)


def test_a_reader_that_meets_many_intents_goes_on_without_maintaining(aws: Aws) -> None:
    stack = aws.deploy("many")
    stack.allow_plain_http()
    root = aws.client("s3")
    Archive.create(stack.url, partition_by="metadata.owner", client=root).close()
    with Archive.open(stack.url, client=root) as archive:
        for number in range(3):
            archive.save(chat(f"chat-{number}"))
    client = stack.user(stack.outputs["ReaderPolicyArn"]).client("s3", endpoint_url=aws.endpoint)
    calls = record(client)
    with pytest.MonkeyPatch.context() as patched, Archive.open(stack.url, client=client) as archive:
        patched.setattr("s3conv.core.maintaining.INLINE", 2)
        assert archive.count() == archive.count() == 3
    assert len([call for call in calls if call.status == 403]) >= 1  # it tried, and once was enough
    client.close()


def test_a_request_without_tls_is_refused(aws: Aws, stack: Stack) -> None:
    """By the bucket's policy, whatever the user's own allows: MiniStack on loopback has no TLS."""
    client = stack.user(stack.outputs["WriterPolicyArn"]).client("s3", endpoint_url=aws.endpoint)
    with pytest.raises(ClientError, match="explicit deny in a resource-based policy"):
        client.put_object(Bucket=stack.bucket, Key="archive/conversations/00/x.json.zst", Body=b"")
    client.close()


def test_of_what_is_not_understood_nothing_is_allowed() -> None:
    statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    need = Need("s3:GetObject", "arn:aws:s3:::bucket/key", {"s3:prefix": "a"})
    assert allows({"Statement": [statement]}, need)
    assert not allows({"Statement": [statement, {**statement, "Effect": "Deny"}]}, need)
    assert not allows({"Statement": []}, need)
    for more in ({"NotPrincipal": "*"}, {"Condition": {"StringNotLike": {"s3:prefix": "b"}}}):
        with pytest.raises(ValueError, match="not understood"):
            allows({"Statement": [{**statement, **more}]}, need)
