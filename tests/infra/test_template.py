"""The template itself: what cfn-lint says of it, and what MiniStack takes but does not apply."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra import build
from tests.infra.template import TEMPLATE, load, of_type

INLINE_LIMIT = 51_200
"""Most bytes of a template that CloudFormation takes without a bucket to put it in."""


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    return load()


def everything(value: object) -> list[object]:
    """A value, and all values in it."""
    inner: list[Any] = []
    if isinstance(value, dict):
        inner = list(value.values())
    elif isinstance(value, list):
        inner = value
    return [value, *(each for one in inner for each in everything(one))]


def test_cfn_lint_finds_nothing() -> None:
    lint = Path(sys.executable).with_name("cfn-lint")
    done = subprocess.run([lint, "--include-checks", "I", "--", TEMPLATE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_any_tool_can_read_it(template: dict[str, Any]) -> None:
    assert template.keys() <= {
        "AWSTemplateFormatVersion", "Description", "Parameters", "Conditions", "Resources", "Outputs",
    }  # fmt: skip
    used = {name for one in everything(template) if isinstance(one, dict) for name in one if name.startswith("Fn::")}
    assert used == {"Fn::Equals", "Fn::GetAtt", "Fn::If", "Fn::Not", "Fn::Split", "Fn::Sub"}
    assert {one["Type"].split("::")[0] for one in template["Resources"].values()} == {"AWS"}
    assert TEMPLATE.stat().st_size < INLINE_LIMIT


def test_a_parameter_is_needed_only_for_the_code_and_each_is_described(template: dict[str, Any]) -> None:
    parameters = template["Parameters"]
    assert [name for name, one in parameters.items() if "Default" not in one] == ["CodeBucket", "CodeKey"]
    assert [name for name, one in parameters.items() if not one.get("Description")] == []


def test_every_parameter_and_output_is_in_the_readme(template: dict[str, Any]) -> None:
    readme = TEMPLATE.with_name("README.md").read_text(encoding="utf-8")
    names = [*template["Parameters"], *template["Outputs"]]
    assert [name for name in names if f"`{name}`" not in readme] == []


def test_functions_run_what_make_lambda_builds(template: dict[str, Any]) -> None:
    functions = of_type(template, "AWS::Lambda::Function").values()
    assert {one["Runtime"] for one in functions} == {f"python{build.PYTHON}"}
    assert set(template["Parameters"]["Architecture"]["AllowedValues"]) == set(build.PLATFORMS)
    for one in functions:
        module, handler = one["Handler"].split(".")
        source = (TEMPLATE.parent / "functions" / f"{module}.py").read_text(encoding="utf-8")
        assert f"\ndef {handler}(" in source


def test_old_versions_expire_soonest_in_the_index(template: dict[str, Any]) -> None:
    (bucket,) = of_type(template, "AWS::S3::Bucket").values()
    rules = {one.pop("Id"): one for one in bucket["LifecycleConfiguration"]["Rules"]}
    assert rules == {
        "abort-incomplete-uploads": {
            "Status": "Enabled",
            "Prefix": "",
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
        },
        "expire-noncurrent-versions": {
            "Status": "Enabled",
            "Prefix": "",
            "NoncurrentVersionExpiration": {"NoncurrentDays": {"Ref": "NoncurrentDays"}},
            "ExpiredObjectDeleteMarker": True,
        },
        # Below the archive's own prefix: a rule for "index/" would match nothing.
        "expire-noncurrent-index": {
            "Status": "Enabled",
            "Prefix": {"Fn::Sub": "${Prefix}/index/"},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
        },
    }


def test_no_rule_expires_what_is_current(template: dict[str, Any]) -> None:
    """Neither by days nor by date: a document is as old as its last turn."""
    (bucket,) = of_type(template, "AWS::S3::Bucket").values()
    for rule in bucket["LifecycleConfiguration"]["Rules"]:
        assert not rule.keys() & {"Expiration", "ExpirationDate", "ExpirationInDays", "Transition", "Transitions"}


def test_objects_are_encrypted_with_the_key_or_with_s3s_own(template: dict[str, Any]) -> None:
    (bucket,) = of_type(template, "AWS::S3::Bucket").values()
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    condition, keyed, plain = rule["Fn::If"]
    assert condition == "HasKey"
    assert keyed == {
        "BucketKeyEnabled": True,
        "ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": {"Ref": "KmsKeyArn"}},
    }
    assert plain == {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}


def test_what_holds_conversations_outlives_the_stack_and_nothing_else_does(template: dict[str, Any]) -> None:
    policies = {name: one.get("DeletionPolicy", "Delete") for name, one in template["Resources"].items()}
    # But not a stack that could not be created: its empty bucket would be in the way of the next try.
    assert policies.pop("Bucket") == "RetainExceptOnCreate"
    assert set(policies.values()) == {"Delete"}
    assert template["Resources"]["Bucket"]["UpdateReplacePolicy"] == "Retain"


def test_roles_are_for_lambda_only(template: dict[str, Any]) -> None:
    roles = of_type(template, "AWS::IAM::Role")
    assert set(roles) == {"ChatRole", "MaintenanceRole"}
    for role in roles.values():
        assert role["AssumeRolePolicyDocument"]["Statement"] == [
            {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ]


def test_a_function_logs_where_its_role_may_write_and_where_lines_expire(template: dict[str, Any]) -> None:
    groups = of_type(template, "AWS::Logs::LogGroup")
    roles = of_type(template, "AWS::IAM::Role")
    for function in of_type(template, "AWS::Lambda::Function").values():
        # Named by the group, so that the group is there first; else Lambda makes one whose lines never expire.
        group = function["LoggingConfig"]["LogGroup"]["Ref"]
        assert groups[group]["RetentionInDays"] == {"Ref": "LogDays"}
        role = roles[function["Role"]["Fn::GetAtt"][0]]
        (log,) = [one["PolicyDocument"]["Statement"] for one in role["Policies"] if one["PolicyName"] == "log"]
        assert log == [
            {
                "Effect": "Allow",
                "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
                "Resource": {"Fn::GetAtt": [group, "Arn"]},
            }
        ]


def test_what_fails_for_good_goes_to_the_dead_letter_queue(template: dict[str, Any]) -> None:
    """What EventBridge cannot hand over, and what Lambda took and could not finish."""
    queue = {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}
    (schedule,) = of_type(template, "AWS::Events::Rule").values()
    (target,) = schedule["Targets"]
    assert target["Arn"] == {"Fn::GetAtt": ["MaintenanceFunction", "Arn"]}
    assert target["DeadLetterConfig"] == {"Arn": queue}
    function = template["Resources"]["MaintenanceFunction"]["Properties"]
    assert function["DeadLetterConfig"] == {"TargetArn": queue}
    assert {
        "Effect": "Allow",
        "Action": "sqs:SendMessage",
        "Resource": queue,
    } in [
        statement
        for policy in template["Resources"]["MaintenanceRole"]["Properties"]["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
    ]
    (retries,) = of_type(template, "AWS::Lambda::EventInvokeConfig").values()
    assert retries["FunctionName"] == {"Ref": "MaintenanceFunction"}
    assert retries["MaximumRetryAttempts"] == 1


def test_every_alarm_is_sent_and_watches_what_is_there(template: dict[str, Any]) -> None:
    alarms = of_type(template, "AWS::CloudWatch::Alarm")
    sent = {"Fn::If": ["HasTopic", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]}
    watched = {}
    for name, alarm in alarms.items():
        assert (alarm["AlarmActions"], alarm["OKActions"]) == (sent, sent)
        (dimension,) = alarm["Dimensions"]
        (of,) = dimension["Value"].values()
        resource = of if isinstance(of, str) else of[0]
        watched[name] = (alarm["Namespace"], alarm["MetricName"], dimension["Name"], resource)
    assert watched == {
        "MaintenanceFailing": ("AWS/Lambda", "Errors", "FunctionName", "MaintenanceFunction"),
        "MaintenanceStalled": ("s3conv", "Finished", "Function", "MaintenanceFunction"),
        "IntentsPilingUp": ("s3conv", "IntentsPending", "Function", "MaintenanceFunction"),
        "MaintenanceThrottled": ("AWS/Lambda", "Throttles", "FunctionName", "MaintenanceFunction"),
        "ChatThrottled": ("AWS/Lambda", "Throttles", "FunctionName", "ChatFunction"),
        "ChatFailing": ("AWS/Lambda", "Url5xxCount", "FunctionName", "ChatFunction"),
        "DeadLetters": ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", "DeadLetterQueue"),
    }


def test_an_alarm_looks_for_longer_than_maintenance_may_be_apart(template: dict[str, Any]) -> None:
    """Or it would rise between two runs, for want of a metric."""
    stalled = template["Resources"]["MaintenanceStalled"]["Properties"]
    assert stalled["TreatMissingData"] == "breaching"
    assert stalled["Period"] >= template["Parameters"]["MaintenanceMinutes"]["MaxValue"] * 60


def test_who_may_call_the_url_may_not_invoke_the_function_past_it(template: dict[str, Any]) -> None:
    """An event of Lambda's own Invoke names whatever identity its sender likes."""
    url, through = template["Resources"]["CallerPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert (url["Action"], url["Condition"]) == (
        "lambda:InvokeFunctionUrl",
        {"StringEquals": {"lambda:FunctionUrlAuthType": "AWS_IAM"}},
    )
    assert (through["Action"], through["Condition"]) == (
        "lambda:InvokeFunction",
        {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}},
    )
    for permission in of_type(template, "AWS::Lambda::Permission").values():
        if permission["FunctionName"] == {"Fn::GetAtt": ["ChatFunction", "Arn"]}:
            narrowed = permission.get("FunctionUrlAuthType"), permission.get("InvokedViaFunctionUrl")
            expected = ("AWS_IAM", None) if permission["Action"] == "lambda:InvokeFunctionUrl" else (None, True)
            assert narrowed == expected
