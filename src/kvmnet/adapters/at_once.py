"""Some calls at the same time. Python's own pools take longer to import than what is called."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

AT_ONCE = 16


def at_once(calls: Sequence[Callable[[], None]]) -> None:
    """Make all calls, some at the same time; raises what one of them raised, once all have ended.

    The last is made by the caller's own thread.
    """
    waiting = list(calls)
    failures: list[BaseException] = []

    def work() -> None:
        while waiting and not failures:
            try:
                call = waiting.pop()
            except IndexError:  # another thread was quicker
                return
            try:
                call()
            except BaseException as error:  # raised where all are waited for
                failures.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in calls[1:AT_ONCE]]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
