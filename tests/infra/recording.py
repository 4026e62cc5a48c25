"""Every S3 request of a client, with the status of its answer."""

from __future__ import annotations

from typing import Any

from tests.infra.policies import Call


def record(client: Any, calls: list[Call] | None = None) -> list[Call]:
    """Let `client` note its requests in `calls`, or a new list, which is returned; the SDK's repeats are among them.

    They are noted where answers come in: "after-call" is not told of a conditional PUT that was refused.
    """
    noted = calls if calls is not None else []

    def asked(params: dict[str, Any], model: Any, context: dict[str, Any], **_: object) -> None:
        context["s3conv_asked"] = model.name, dict(params)

    def answered(response_dict: dict[str, Any] | None, context: dict[str, Any], **_: object) -> None:
        if response_dict is not None:
            operation, parameters = context["s3conv_asked"]
            noted.append(Call(operation, parameters, response_dict["status_code"]))

    client.meta.events.register_first("provide-client-params.s3", asked)
    client.meta.events.register_first("response-received.s3", answered)
    return noted
