"""Calls that go on beside others, each in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from kvmnet.adapters.libvirt import leave_behind

T = TypeVar("T")


class Beside(threading.Thread, Generic[T]):
    """A call that has begun; `value` waits for it."""

    def __init__(self, what: str, call: Callable[[], T]) -> None:
        super().__init__(daemon=True, name=what)
        self.what = what
        self._call = call
        self._values: list[T] = []
        self._failure: BaseException | None = None
        self._done = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            self._values.append(self._call())
        except BaseException as error:  # handed over in `value`
            self._failure = error
        finally:
            self._done.set()

    def value(self) -> T:
        """What the call returned. Raises what it raised."""
        try:
            self._done.wait()
        except KeyboardInterrupt:
            leave_behind(self._done)
            raise
        if self._failure is not None:
            raise self._failure
        return self._values[0]
