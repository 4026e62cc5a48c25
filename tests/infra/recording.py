"""Every S3 request of a client, with the status of its answer."""

from __future__ import annotations

from typing import Any

from tests.infra.policies import Call


def record(client: Any) -> list[Call]:
    """Let `client` note its requests in the list that is returned. The SDK's own repeats count once."""
    calls: list[Call] = []

    def asked(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
        context["s3conv_asked"] = dict(params)

    def answered(http_response: Any, model: Any, context: dict[str, Any], **_: object) -> None:
        calls.append(Call(model.name, context["s3conv_asked"], http_response.status_code))

    client.meta.events.register_first("provide-client-params.s3", asked)
    client.meta.events.register("after-call.s3", answered)
    return calls
