"""What S3's answers and the SDK's exceptions mean in the words of the contract.

Law: pure, and the only module that knows S3's error codes. Only a definite "the key is not there" becomes `KeyMissing`;
whatever leaves open whether a write was applied becomes `UnavailableError`. Messages name the object, what was
answered and what to do; they carry S3's own words, never a secret.
"""

from __future__ import annotations

from botocore import exceptions as sdk
from botocore.parsers import ResponseParserError

from s3conv.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    CredentialsError,
    StorageError,
    StoreError,
    UnavailableError,
)
from s3conv.store.base import Contended, NotModified, PreconditionFailed, RangeNotSatisfiable


class KeyMissing(StoreError):
    """404 NoSuchKey. It never leaves the store."""


class BrokenBody(Exception):
    """The body of an answer ended early, failed its checksum, or its connection broke."""


_CREDENTIALS = (
    sdk.NoCredentialsError,
    sdk.PartialCredentialsError,
    sdk.CredentialRetrievalError,
    sdk.TokenRetrievalError,
    sdk.NoAuthTokenError,
    sdk.UnknownCredentialError,
    sdk.SSOError,
    sdk.ProfileNotFound,
)
_MAYBE_SENT = (
    sdk.HTTPClientError,
    sdk.ConnectionError,
    sdk.IncompleteReadError,
    sdk.FlexibleChecksumError,
    sdk.ChecksumError,
    ResponseParserError,  # An answer that is not S3's (a proxy's page, a cut one) says nothing about the write.
    OSError,
    EOFError,
    BrokenBody,
)

_CREDENTIAL_CODES = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidToken",
    "TokenRefreshRequired",
    "InvalidSecurity",
}
_BUCKET_CODES = {"NoSuchBucket", "NoSuchAccessPoint"}
_CONTENDED_CODES = {"ConditionalRequestConflict", "OperationAborted", "ConcurrentModification"}
_BUSY_CODES = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequests",
    "TooManyRequestsException",
    "BandwidthLimitExceeded",
    "RequestTimeout",
    "InternalError",
    "ServiceUnavailable",
}
_REGION_CODES = {
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "301",
    "307",
}


def is_wordless(error: Exception) -> bool:
    """Whether it is a 404 that does not say what is missing: a newer SDK hides that its body broke off."""
    if not isinstance(error, sdk.ClientError):
        return False
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status == 404 and error.response.get("Error", {}).get("Code") in (None, "", "404")


def translate(error: Exception, operation: str, where: str) -> StorageError | None:
    """The error to raise for `error`, met in `operation` (an SDK method's name) on `where` (s3://bucket/key).

    None for an exception that is neither the SDK's nor the network's: it is a bug, to be seen as it is.
    """
    if isinstance(error, StorageError):
        return error
    if isinstance(error, sdk.ClientError):
        return _answered(error, operation, where)
    if isinstance(error, _CREDENTIALS):
        return CredentialsError(
            f"{where}: no usable credentials: {error}; configure them as for any AWS tool (environment, profile, role)"
        )
    if isinstance(error, sdk.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StoreError(f"{where}: {error}; check the endpoint, and the CA bundle (AWS_CA_BUNDLE)")
    if isinstance(error, _MAYBE_SENT):
        return UnavailableError(
            f"{where}: no usable answer to {operation}: {str(error) or type(error).__name__}; try later"
        )
    if isinstance(error, sdk.BotoCoreError):
        return StoreError(f"{where}: {operation} was not sent: {error}")
    return None


def refused(code: str, message: str, operation: str, where: str, status: int = 0) -> StorageError:
    """The error for S3's `code` and `message`, from a whole answer (`status`) or from one key's line in one (0)."""
    answer = " ".join(dict.fromkeys(part for part in (str(status or ""), code) if part))
    said = f"{where}: {operation} was answered {answer or 'nothing'}"
    said += f" ({message.rstrip('.')})" if message else ""
    if code in _BUCKET_CODES:
        return BucketNotFoundError(f"{said}: check the bucket's name, the region and the endpoint")
    if code == "NoSuchKey" or (status == 404 and operation == "head_object"):
        return KeyMissing(said)
    if status == 304:
        return NotModified(said)
    if status == 412 or code == "PreconditionFailed":
        return PreconditionFailed(said)
    if status == 416 or code == "InvalidRange":
        return RangeNotSatisfiable(
            f"{said}: the object is shorter than asked for; it was cut short, or what names this range is wrong"
        )
    if status == 409 and code in _CONTENDED_CODES:
        return Contended(f"{said}: another write to it is in progress; send the same again")
    if code in _CREDENTIAL_CODES:
        return CredentialsError(f"{said}: check the credentials in use")
    if code == "RequestTimeTooSkewed":
        return StoreError(f"{said}: set this machine's clock")
    if code == "InvalidObjectState":
        return StoreError(f"{said}: the object lies in an archive storage class; restore it first")
    if status == 501 or code == "NotImplemented":
        return StoreError(f"{said}: the store cannot do this; use another one")
    if status >= 500 or status in (408, 429) or code in _BUSY_CODES:
        return UnavailableError(f"{said}: try again later")
    if status == 403 or code == "AccessDenied":
        return AccessDeniedError(
            f"{said}: check the policy of the credentials in use. S3 also answers 403 for a key that is not there when "
            f"they may not list the bucket (s3:ListBucket)"
        )
    if status == 400 and operation == "head_object":
        return StoreError(f"{said}, and a HEAD is not told why: is the bucket in another region, or a token expired?")
    if 300 <= status < 400 or code in _REGION_CODES:
        return StoreError(f"{said}: is the bucket in another region? Name its region, or its endpoint")
    return StoreError(said)


def _answered(error: sdk.ClientError, operation: str, where: str) -> StorageError:
    details = error.response.get("Error", {})
    code, message = str(details.get("Code", "")), str(details.get("Message", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    asked = error.operation_name.replace("_", "").lower()
    if asked != operation.replace("_", ""):
        # Another service, asked by the SDK on the way: STS or SSO, for credentials.
        return CredentialsError(
            f"{where}: {error.operation_name}, asked for credentials, was answered {code} ({message})"
        )
    return refused(code, message, operation, where, status)
