"""What both functions take from the runtime that they live in: boto3, the environment, the time left, standard output.

Law: nothing here sends a request. The archive and its S3 client are made when a function is imported, in the phase in
which a runtime has a whole processor, whatever its share of one is later. Only here is the environment read or printed.

    S3CONV_URL              the archive: s3://bucket/prefix
    S3CONV_KMS_KEY_ID       the KMS key to write with; empty: the bucket's own encryption
    S3CONV_ACTIVITY_WINDOW  seconds; 0: none. See `Archive.open`
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any, Protocol

import boto3
from botocore.config import Config

from s3conv import Archive, Operation

OLDEST_BOTO3 = (1, 36)
"""Conditional PUTs (`IfMatch`) came with 1.35.69, in November 2024, the checksums that s3conv asks for with 1.36.0. pip
is told to take a newer one (pyproject.toml); a runtime has the one that it has."""

PARTITION_BY = "metadata.owner"
"""The metadata that lists fix, see `tenants`."""

MARGIN = 0.5
"""Seconds that are kept back from what an invocation has left, for its answer."""


class LambdaContext(Protocol):
    """What is used of the second argument that every handler gets."""

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the invocation is ended, whatever it does."""
        ...


def check_boto3(version: str) -> None:
    """See to it that the runtime's boto3 knows what an archive needs.

    Raises:
        RuntimeError: it does not; says what to do.
    """
    found = tuple(int(part) for part in version.split(".")[:2])
    if found < OLDEST_BOTO3:
        oldest = ".".join(map(str, OLDEST_BOTO3))
        raise RuntimeError(
            f"s3conv needs boto3 {oldest} or newer, this runtime has {version}: choose a newer runtime or its newest "
            "version, or add boto3 to the deployment package"
        )


check_boto3(boto3.__version__)


def url() -> str:
    """The archive's URL.

    Raises:
        RuntimeError: S3CONV_URL is not set.
    """
    found = os.environ.get("S3CONV_URL", "")
    if not found:
        raise RuntimeError("S3CONV_URL is not set: expected the archive's URL, s3://bucket/prefix")
    return found


def store_options() -> dict[str, Any]:
    """The options of the archive's store: for S3 the KMS key, and a client that tries again rather than wait long."""
    if not url().startswith("s3://"):
        return {}
    config = Config(
        connect_timeout=2,
        read_timeout=5,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=32,
        user_agent_extra="s3conv-functions",
    )
    return {"client": boto3.client("s3", config=config), "kms_key_id": os.environ.get("S3CONV_KMS_KEY_ID") or None}


def open_archive(options: Mapping[str, Any], *, activity_window: float = 0.0) -> Archive:
    """The archive; no request is made. It never maintains itself: the maintenance function does, by a schedule."""
    return Archive.open(url(), auto_maintain=False, activity_window=activity_window, on_operation=report, **options)


def activity_window() -> float:
    """The activity window in seconds, by S3CONV_ACTIVITY_WINDOW."""
    return float(os.environ.get("S3CONV_ACTIVITY_WINDOW") or 0)


def time_left(context: LambdaContext) -> float:
    """Seconds that the invocation may still use, for `timeout=`; where none are left, too few for any request."""
    return max(1e-6, context.get_remaining_time_in_millis() / 1000 - MARGIN)


_COUNTS = {
    "Requests": "requests",
    "Retries": "retries",
    "Conflicts": "conflicts",
}
_BYTES = {"BytesRead": "bytes_read", "BytesWritten": "bytes_written"}


def report(operation: Operation) -> None:
    """Write the metrics of one operation of the library; its `on_operation`."""
    values: dict[str, tuple[float, str]] = {
        **{name: (getattr(operation, field), "Count") for name, field in _COUNTS.items()},
        **{name: (getattr(operation, field), "Bytes") for name, field in _BYTES.items()},
        "Milliseconds": (round(operation.milliseconds, 3), "Milliseconds"),
    }
    put_metrics(values, Operation=operation.name, **({"Error": operation.error} if operation.error else {}))


def put_metrics(values: Mapping[str, tuple[float, str]], **labels: str) -> None:
    """Write one line in CloudWatch's embedded metric format, from which CloudWatch makes metrics of namespace s3conv.

    Args:
        values: of each metric its value and its unit.
        labels: fields of the line. `Operation`, if it is among them, is a dimension beside `Function`.
    """
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    dimensions = ["Function", *(["Operation"] if "Operation" in labels else [])]
    line = {
        "_aws": {
            "Timestamp": int(time.time() * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": "s3conv",
                    "Dimensions": [dimensions],
                    "Metrics": [{"Name": name, "Unit": unit} for name, (_, unit) in values.items()],
                }
            ],
        },
        "Function": os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "local"),
        **labels,
        **{name: value for name, (value, _) in values.items()},
    }
    print(json.dumps(line, separators=(",", ":")), flush=True)
