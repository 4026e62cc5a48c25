"""What every command shares: the archive's URL, the options for S3, and from them an archive.

Law: the environment is read here and nowhere else, through these options (`S3CONV_…`); the AWS SDK reads its own.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from s3conv.archive import Archive
from s3conv.errors import CredentialsError, InvalidInputError
from s3conv.format.entry import check_partition_by
from s3conv.store import StoreOptions, open_store

_FORMS = "s3://bucket/prefix, file:///folder or a path"
_URL = Annotated[
    str, typer.Argument(metavar="URL", help="The archive: s3://bucket/prefix, file:///folder, or a plain path.")
]
_S3_OPTIONS: dict[str, Any] = {
    "endpoint_url": Annotated[
        str | None,
        typer.Option(envvar="S3CONV_ENDPOINT_URL", metavar="URL", help="Address of an S3 store that is not AWS."),
    ],
    "region": Annotated[str | None, typer.Option(envvar="S3CONV_REGION", metavar="NAME", help="Region of the bucket.")],
    "profile": Annotated[
        str | None, typer.Option(envvar="S3CONV_PROFILE", metavar="NAME", help="Profile of the AWS configuration.")
    ],
    "addressing_style": Annotated[
        Literal["auto", "path", "virtual"] | None,
        typer.Option(envvar="S3CONV_ADDRESSING_STYLE", help="How the bucket's name is sent to the store."),
    ],
    "kms_key_id": Annotated[
        str | None,
        typer.Option(envvar="S3CONV_KMS_KEY_ID", metavar="ID", help="Write objects with SSE-KMS and this key."),
    ],
    "expected_bucket_owner": Annotated[
        str | None,
        typer.Option(
            envvar="S3CONV_EXPECTED_BUCKET_OWNER", metavar="ACCOUNT", help="Refuse a bucket of another account."
        ),
    ],
}


@dataclass(frozen=True, slots=True)
class Target:
    """The archive that a command is about."""

    url: str
    options: StoreOptions
    given: dict[str, Any] = field(default_factory=dict)

    def options_for(self, url: str) -> StoreOptions:
        """What was said about S3, for a store at another URL."""
        return store_options(url, self.given)

    def open(self) -> Archive:
        """The archive that is there."""
        return Archive.open(self.url, **self.options)

    def create(self, partition_by: str | None) -> Archive:
        """A new archive.

        Raises:
            BadParameter: no archive can have this `partition_by`.
        """
        with reading("--partition-by"):
            check_partition_by(partition_by)
        return Archive.create(self.url, partition_by=partition_by, **self.options)


def on_archive(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose first parameter is a `Target`, with the URL and the options for S3 in its place."""
    own = inspect.signature(command, eval_str=True)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [
        inspect.Parameter("url", kind, annotation=_URL),
        *list(own.parameters.values())[1:],
        *(inspect.Parameter(name, kind, default=None, annotation=_S3_OPTIONS[name]) for name in _S3_OPTIONS),
    ]

    @wraps(command)
    def run(**given: Any) -> None:
        url = archive_url(given.pop("url"))
        said = {name: given.pop(name) for name in _S3_OPTIONS}
        command(Target(url, store_options(url, said), said), **given)

    # typer reads the parameters off the function.
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]  # as functools.wraps does
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


@contextmanager
def reading(parameter: str | None) -> Iterator[None]:
    """Make it wrong usage if what a parameter says cannot be used. What is done here depends on nothing else."""
    try:
        yield
    except InvalidInputError as error:
        raise typer.BadParameter(str(error), param_hint=parameter) from None


def archive_url(text: str) -> str:
    """The URL that is meant: itself, or `file://` and the absolute path.

    Raises:
        BadParameter: there can be no archive at it, whatever is there.
    """
    scheme, separator, _ = text.partition("://")
    if separator and scheme in ("s3", "file"):
        with reading("URL"):
            open_store(text)  # sends no request
        return text
    if not text or separator or text.startswith(("s3:", "file:", "memory:")):
        why = "what is in memory ends with this command; " if text.startswith("memory:") else ""
        raise typer.BadParameter(f"{text!r}: {why}expected {_FORMS}", param_hint="URL")
    return Path(os.path.expanduser(text)).absolute().as_uri()  # Path's own raises where there is no such user


def store_options(url: str, given: dict[str, Any]) -> StoreOptions:
    """What `Archive.open` is told: for S3 what was given; for other stores nothing, as the environment may hold it."""
    if not url.startswith("s3://"):
        return {}
    options = {name: value for name, value in given.items() if value and name != "profile"}
    if given.get("profile"):
        options["session"] = _session(given["profile"])
    return cast(StoreOptions, options)


def _session(profile: str) -> object:
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        return boto3.Session(profile_name=profile)
    except BotoCoreError as error:
        raise CredentialsError(f"profile {profile!r} cannot be used: {error}") from None
