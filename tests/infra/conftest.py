"""A MiniStack that enforces policies, and stacks of the template in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.infra.stack import Aws, Stack, serve


@pytest.fixture(scope="session")
def aws() -> Iterator[Aws]:
    """One for all tests of the template; a stack takes 0.3 s."""
    with serve() as started:
        yield started


@pytest.fixture(scope="session")
def stack(aws: Aws) -> Stack:
    """A stack with every parameter as it is unless given. Its bucket still has the policy that allows TLS only."""
    return aws.deploy("plain")
