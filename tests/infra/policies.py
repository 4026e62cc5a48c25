"""What a request needs of a policy, and whether a policy gives it.

Law: pure. Only what the template's policies use is understood of the language of policies; anything else is an error,
never an allowance. What S3's requests need is by AWS' own tables ("Required permissions for Amazon S3 API operations"),
and two rules of its documentation beside them: a PUT with If-Match needs s3:GetObject, too, and a missing key is told
(404) to who may list it, which is asked with the key as s3:prefix.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Policy = Mapping[str, Any]


@dataclass(frozen=True)
class Need:
    """An action on a resource, and the values of condition keys that the request has."""

    action: str
    resource: str
    values: Mapping[str, str] = field(default_factory=dict)


def allows(policy: Policy, need: Need) -> bool:
    """Whether a policy allows what is needed. A denial wins."""
    effects = {one["Effect"] for one in _several(policy["Statement"]) if _applies(one, need)}
    return effects == {"Allow"}


def _applies(statement: Mapping[str, Any], need: Need) -> bool:
    if unknown := statement.keys() - {"Sid", "Effect", "Action", "Resource", "Condition"}:
        raise ValueError(f"a statement has {sorted(unknown)}, which is not understood here")
    return (
        any(_matches(one.lower(), need.action.lower()) for one in _several(statement["Action"]))
        and any(_matches(one, need.resource) for one in _several(statement["Resource"]))
        and all(
            _holds(operator, key, _several(wanted), need.values)
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def _holds(operator: str, key: str, wanted: list[str], values: Mapping[str, str]) -> bool:
    """Whether a condition holds; not without a value."""
    if key not in values:
        return False
    match operator:
        case "StringEquals":
            return values[key] in wanted
        case "StringLike":
            return any(_matches(one, values[key]) for one in wanted)
    raise ValueError(f"the condition {operator} is not understood here")


def _matches(pattern: str, text: str) -> bool:
    parts = {"*": ".*", "?": "."}
    return re.fullmatch("".join(parts.get(one, re.escape(one)) for one in pattern), text, re.DOTALL) is not None


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def without(policy: Policy) -> Iterator[tuple[str, Policy]]:
    """The policy less each of its parts in turn: a statement, and an action, a resource or a value of a condition where
    a statement has several. Each with the part's name."""
    for number, statement in enumerate(_several(policy["Statement"])):
        name = statement["Sid"]
        yield name, {**policy, "Statement": [one for one in policy["Statement"] if one is not statement]}
        places: list[tuple[str, ...]] = [("Action",), ("Resource",)]
        places += [
            ("Condition", operator, key) for operator, keys in statement.get("Condition", {}).items() for key in keys
        ]
        for place in places:
            for part in _several(_at(statement, place)):
                rest = [one for one in _several(_at(statement, place)) if one != part]
                if rest:
                    less = copy.deepcopy(dict(policy))
                    _at(less["Statement"][number], place[:-1])[place[-1]] = rest
                    yield f"{name}: {part}", less


def _at(statement: Any, place: tuple[str, ...]) -> Any:
    for step in place:
        statement = statement[step]
    return statement


@dataclass(frozen=True)
class Call:
    """A request to S3, and the status of its answer."""

    operation: str
    parameters: Mapping[str, Any]
    status: int

    @property
    def name(self) -> str:
        """For messages."""
        where = self.parameters.get("Key", self.parameters.get("Prefix", ""))
        return f"{self.operation} {where} -> {self.status}"


_OF_THE_BUCKET = {
    "DeleteBucket": "s3:DeleteBucket",
    "DeleteBucketPolicy": "s3:DeleteBucketPolicy",
    "GetBucketPolicy": "s3:GetBucketPolicy",
    "ListObjectVersions": "s3:ListBucketVersions",
    "PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "PutBucketPolicy": "s3:PutBucketPolicy",
    "PutBucketVersioning": "s3:PutBucketVersioning",
}


def needs(call: Call, key_arn: str, region: str) -> list[Need]:
    """What a request needs, in a bucket whose objects are encrypted with a KMS key."""
    asked = call.parameters
    bucket = f"arn:aws:s3:::{asked['Bucket']}"
    one = f"{bucket}/{asked.get('Key', '')}"
    via = {"kms:ViaService": f"s3.{region}.amazonaws.com"}
    missing = [Need("s3:ListBucket", bucket, {"s3:prefix": asked["Key"]})] if call.status == 404 else []
    version = "Version" if "VersionId" in asked else ""
    match call.operation:
        case "GetObject" | "HeadObject":
            body = [Need("kms:Decrypt", key_arn, via)] if call.status in (200, 206) else []
            return [Need(f"s3:GetObject{version}", one), *body, *missing]
        case "PutObject":
            compared = [Need("s3:GetObject", one)] if "IfMatch" in asked else []
            return [Need("s3:PutObject", one), *compared, Need("kms:GenerateDataKey", key_arn, via), *missing]
        case "DeleteObject":
            return [Need(f"s3:DeleteObject{version}", one)]
        case "DeleteObjects":
            return [Need("s3:DeleteObject", f"{bucket}/{each['Key']}") for each in asked["Delete"]["Objects"]]
        case "ListObjectsV2":
            return [Need("s3:ListBucket", bucket, {"s3:prefix": asked["Prefix"]} if "Prefix" in asked else {})]
    return [Need(_OF_THE_BUCKET[call.operation], bucket)]
