"""Who calls, and which conversations are theirs.

Law: a tenant is read from what the platform has verified, `requestContext.authorizer.iam`, and from nothing that a
caller can write: not the body, not the path, not a header, and not the session name of a role, which who assumes the
role chooses. An identity of a form that is not known here is refused. Everything is pure.

A conversation of a tenant is stored as `<32 hex digits of sha256(owner)>/<id>`, with `owner` in its metadata. The hash
has a fixed length, so whatever an id holds, two tenants never share a stored id; and keys, which show up in access
logs, tell nobody's name.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

OWNER = "owner"
"""The key of the metadata that names the tenant; the archive is partitioned by it."""

MAX_ID = 512
"""Longest id of a conversation, in bytes of UTF-8. With the hash it stays below s3conv's 1,024."""

# The names that IAM allows. Neither a path of a user nor a role's is part of them: a name is unique within an account.
_NAME = r"[A-Za-z0-9_+=,.@-]{1,64}"
_USER = re.compile(rf"arn:aws[a-z-]*:iam::([0-9]{{12}}):user/(?:[!-~]*/)?({_NAME})")
_ROLE = re.compile(rf"arn:aws[a-z-]*:sts::([0-9]{{12}}):assumed-role/({_NAME})/[^/]+")
_COGNITO = re.compile(r"[a-z]{2}[a-z0-9-]{1,30}:[0-9a-fA-F-]{36}")


class UnknownCallerError(Exception):
    """Nobody that a tenant can be told from: IAM has not authorized the call, or by an identity that names no one."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose conversations they are; `owner` is what the metadata holds."""

    owner: str

    @property
    def prefix(self) -> str:
        """What the stored ids of this tenant, and of no other, begin with."""
        return f"{hashlib.sha256(self.owner.encode()).hexdigest()[:32]}/"

    def stored_id(self, conversation_id: str) -> str:
        """The id under which a conversation of this tenant is stored."""
        return self.prefix + conversation_id


def tenant_of(context: object) -> Tenant:
    """The tenant of a call, by the `requestContext` of its event.

    It is a Cognito identity where the platform names one (API Gateway does, a function URL does not), else the IAM
    user, or the role that was assumed: `<account>:user/<name>`, `<account>:role/<name>`.

    Raises:
        UnknownCallerError: there is no such identity, as for the root user, for federated users (who names those is
            whoever asks for their token), or where the function's URL is open to everybody.
    """
    iam = _inside(_inside(context, "authorizer"), "iam")
    identity = _inside(_inside(iam, "cognitoIdentity"), "identityId")
    if identity is not None:
        if isinstance(identity, str) and _COGNITO.fullmatch(identity):
            return Tenant(f"cognito:{identity}")
        raise UnknownCallerError("the caller's Cognito identity is not of the form <region>:<uuid>")
    arn, account = _inside(iam, "userArn"), _inside(iam, "accountId")
    if isinstance(arn, str):
        for kind, form in (("user", _USER), ("role", _ROLE)):
            # An account that differs from the one in the ARN is a form that is not known here.
            if (found := form.fullmatch(arn)) and found[1] == account:
                return Tenant(f"{account}:{kind}/{found[2]}")
    raise UnknownCallerError("the caller is no IAM user and no assumed role: call the URL with their signature")


def _inside(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None
