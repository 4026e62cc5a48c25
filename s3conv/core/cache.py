"""A bounded cache of things that never change."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from s3conv.bridge import Mutex

K = TypeVar("K")
V = TypeVar("V")


class Cache(Generic[K, V]):
    """The values that were used last, up to a total weight.

    Args:
        limit: the most that the weights of all values may come to.
        weigh: of one value; 1 each unless told, so that `limit` is a number of values.
    """

    def __init__(self, limit: int, weigh: Callable[[V], int] = lambda value: 1) -> None:
        self._limit = limit
        self._weigh = weigh
        self._weight = 0
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = Mutex()

    def get(self, key: K) -> V | None:
        """The value, or None."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        """Keep a value; those that were not used for longest go if there is too much."""
        with self._lock:
            old = self._values.pop(key, None)
            if old is not None:
                self._weight -= self._weigh(old)
            self._values[key] = value
            self._weight += self._weigh(value)
            while self._weight > self._limit and self._values:
                _, gone = self._values.popitem(last=False)
                self._weight -= self._weigh(gone)
