"""The template, deployed: what CloudFormation made of it, asked of the services themselves.

MiniStack takes all of the template. It does not apply the lifecycle of the bucket, its encryption with a key, reserved
concurrency, dimensions and actions of alarms, nor dead-letter queues of functions: see `test_template` for these.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.infra.stack import KEY, Aws, Stack


@pytest.fixture(scope="module")
def given(aws: Aws) -> Stack:
    """A stack with every parameter given."""
    return aws.deploy(
        "given",
        Architecture="x86_64",
        BucketName="the-chats",
        Prefix="prod/chats",
        KmsKeyArn=KEY,
        FormerKmsKeyArns=f"{KEY}-before",
        NoncurrentDays="90",
        ActivityWindow="60",
        ChatMemory="1769",
        ChatConcurrency="100",
        ChatCaller="111122223333",
        MaintenanceMinutes="5",
        MaintenanceMemory="2048",
        MaintenanceConcurrency="1",
        PendingIntents="500",
        LogDays="7",
        AlarmTopicArn="arn:aws:sns:us-east-1:000000000000:alarms",
    )


def test_the_bucket_is_private_versioned_and_encrypted(aws: Aws, stack: Stack) -> None:
    s3, bucket = aws.client("s3"), stack.bucket
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    blocked = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert blocked == dict.fromkeys(
        ["BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"], True
    )
    (owned,) = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]
    assert owned == {"ObjectOwnership": "BucketOwnerEnforced"}
    (encrypted,) = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert encrypted["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    (statement,) = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
    assert statement == {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def test_outputs_name_what_there_is(aws: Aws, stack: Stack, given: Stack) -> None:
    assert stack.url == f"s3://{stack.bucket}/archive"
    assert stack.outputs["ExportUrl"] == f"s3://{stack.bucket}/archive-exports"
    assert stack.outputs["ChatFunctionName"] == "plain-chat"
    assert stack.outputs["MaintenanceFunctionName"] == "plain-maintenance"
    assert stack.outputs["DeadLetterQueueUrl"].startswith("http")
    assert given.url == "s3://the-chats/prod/chats"
    assert given.outputs["ExportUrl"] == "s3://the-chats/prod/chats-exports"
    assert given.outputs.keys() == stack.outputs.keys()


def test_a_function_has_the_roles_policies_and_no_more(aws: Aws, stack: Stack) -> None:
    for function, policies, inline in (
        ("ChatFunctionName", {"ReaderPolicyArn", "WriterPolicyArn"}, {"log"}),
        ("MaintenanceFunctionName", {"MaintainerPolicyArn"}, {"log", "dead-letter"}),
    ):
        configuration = aws.client("lambda").get_function_configuration(FunctionName=stack.outputs[function])
        role = configuration["Role"].rpartition("/")[2]
        attached = aws.client("iam").list_attached_role_policies(RoleName=role)["AttachedPolicies"]
        assert {one["PolicyArn"] for one in attached} == {stack.outputs[name] for name in policies}
        assert set(aws.client("iam").list_role_policies(RoleName=role)["PolicyNames"]) == inline


def configuration(stack: Stack, function: str) -> dict[str, Any]:
    found: dict[str, Any] = stack.aws.client("lambda").get_function_configuration(FunctionName=stack.outputs[function])
    return found


def test_functions_are_told_of_the_archive(stack: Stack, given: Stack) -> None:
    chat, maintenance = configuration(stack, "ChatFunctionName"), configuration(stack, "MaintenanceFunctionName")
    of_both = {"S3CONV_URL": stack.url, "S3CONV_KMS_KEY_ID": ""}
    assert chat["Environment"]["Variables"] == {**of_both, "S3CONV_ACTIVITY_WINDOW": "0"}
    assert maintenance["Environment"]["Variables"] == of_both
    chat, maintenance = configuration(given, "ChatFunctionName"), configuration(given, "MaintenanceFunctionName")
    of_both = {"S3CONV_URL": given.url, "S3CONV_KMS_KEY_ID": KEY}
    assert chat["Environment"]["Variables"] == {**of_both, "S3CONV_ACTIVITY_WINDOW": "60"}
    assert maintenance["Environment"]["Variables"] == of_both


def test_functions_run_on_the_architecture_of_the_zip(stack: Stack, given: Stack) -> None:
    for one, architecture in ((stack, "arm64"), (given, "x86_64")):
        for name, handler in (("ChatFunctionName", "chat.handler"), ("MaintenanceFunctionName", "maintenance.handler")):
            found = configuration(one, name)
            assert (found["Architectures"], found["Runtime"], found["Handler"]) == (
                [architecture],
                "python3.13",
                handler,
            )
    assert configuration(given, "ChatFunctionName")["MemorySize"] == 1769
    assert configuration(given, "MaintenanceFunctionName")["MemorySize"] == 2048


def test_the_url_takes_signed_requests_only(aws: Aws, stack: Stack, given: Stack) -> None:
    name = stack.outputs["ChatFunctionName"]
    url = aws.client("lambda").get_function_url_config(FunctionName=name)
    assert (url["AuthType"], url["FunctionUrl"]) == ("AWS_IAM", stack.outputs["ChatUrl"])
    assert permissions(stack, "ChatFunctionName") == []
    assert [(one["Action"], one["Principal"], one["Condition"]) for one in permissions(given, "ChatFunctionName")] == [
        ("lambda:InvokeFunction", {"AWS": "111122223333"}, {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}),
        (
            "lambda:InvokeFunctionUrl",
            {"AWS": "111122223333"},
            {"StringEquals": {"lambda:FunctionUrlAuthType": "AWS_IAM"}},
        ),
    ]


def permissions(stack: Stack, function: str) -> list[dict[str, Any]]:
    policy = stack.aws.client("lambda").get_policy(FunctionName=stack.outputs[function])["Policy"]
    return sorted(json.loads(policy)["Statement"], key=lambda one: str(one["Action"]))


def test_maintenance_is_scheduled(aws: Aws, stack: Stack, given: Stack) -> None:
    events = aws.client("events")
    for one, minutes in ((stack, 15), (given, 5)):
        (rule,) = events.list_rules(NamePrefix=f"{one.name}-")["Rules"]
        assert (rule["ScheduleExpression"], rule["State"]) == (f"rate({minutes} minutes)", "ENABLED")
        (target,) = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
        assert target["Arn"] == configuration(one, "MaintenanceFunctionName")["FunctionArn"]
        (permission,) = permissions(one, "MaintenanceFunctionName")
        assert permission["Principal"] == {"Service": "events.amazonaws.com"}
        assert rule["Arn"] in str(permission["Condition"])


def test_the_dead_letter_queue_takes_from_the_schedule_only(aws: Aws, stack: Stack) -> None:
    sqs, url = aws.client("sqs"), stack.outputs["DeadLetterQueueUrl"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert int(found["MessageRetentionPeriod"]) == 14 * 24 * 3600
    assert found["SqsManagedSseEnabled"] == "true"
    (statement,) = json.loads(found["Policy"])["Statement"]
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    assert ":rule/plain-MaintenanceSchedule" in statement["Condition"]["ArnEquals"]["aws:SourceArn"]


def test_logs_and_alarms_are_as_the_parameters_say(aws: Aws, stack: Stack, given: Stack) -> None:
    for one, days, pending in ((stack, 30, 10_000), (given, 7, 500)):
        groups = aws.client("logs").describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{one.name}-")["logGroups"]
        assert {found["logGroupName"]: found["retentionInDays"] for found in groups} == {
            f"/aws/lambda/{one.name}-chat": days,
            f"/aws/lambda/{one.name}-maintenance": days,
        }
        alarms = aws.client("cloudwatch").describe_alarms(AlarmNamePrefix=f"{one.name}-")["MetricAlarms"]
        assert len(alarms) == 7
        (piling_up,) = [found for found in alarms if found["MetricName"] == "IntentsPending"]
        assert piling_up["Threshold"] == pending


def test_the_bucket_stays_when_the_stack_is_deleted(aws: Aws) -> None:
    gone = aws.deploy("gone")
    s3, cloudformation = aws.client("s3"), aws.client("cloudformation")
    s3.put_object(Bucket=gone.bucket, Key="archive/s3conv.json", Body=b"{}")
    (found,) = cloudformation.describe_stacks(StackName="gone")["Stacks"]
    cloudformation.delete_stack(StackName="gone")
    assert aws.settled(found["StackId"]) == "DELETE_COMPLETE"
    assert s3.get_object(Bucket=gone.bucket, Key="archive/s3conv.json")["Body"].read() == b"{}"
    with pytest.raises(aws.client("lambda").exceptions.ResourceNotFoundException):
        configuration(gone, "ChatFunctionName")
