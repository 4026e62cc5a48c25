"""The errors of s3conv, as another process gets them."""

from __future__ import annotations

import copy
import pickle

import pytest

import s3conv
from s3conv import ConflictError, PartialSaveError, StorageError, StoreError

EXPORTED = [value for value in vars(s3conv).values() if isinstance(value, type) and issubclass(value, StorageError)]
SPECIAL = [
    ConflictError("gone", deleted=True),
    PartialSaveError("1 of 2", saved=["a"], failed={"b": StoreError("no")}),
]


@pytest.mark.parametrize("error", [*(one("why") for one in EXPORTED), *SPECIAL], ids=repr)
def test_an_error_can_be_pickled_and_copied(error: StorageError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert (type(again), str(again)) == (type(error), str(error))
        assert repr(vars(again)) == repr(vars(error))
