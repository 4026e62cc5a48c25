"""A MiniStack that enforces policies, and stacks of the template in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.infra.stack import Aws, Stack, serve


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    """One for each module: it starts in half a second, and a stack takes 0.3 s."""
    with serve() as started:
        yield started


@pytest.fixture(scope="module")
def stack(aws: Aws) -> Stack:
    """A stack with every parameter as it is unless given. Its bucket still has the policy that allows TLS only."""
    return aws.deploy("plain")
