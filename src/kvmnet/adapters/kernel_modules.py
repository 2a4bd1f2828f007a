"""Has the kernel load a part of itself beside other work, before that part is needed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from kvmnet.adapters.run import spawn, wait
from kvmnet.errors import KvmnetError

LOAD_S = 10.0


@contextlib.contextmanager
def loading(module: str) -> Iterator[None]:
    """Begin to load the module; what the block does waits for it only where it needs it.

    The kernel loads it by itself too, but then whoever asks first waits: with the lock on all
    network links held (`rtnl`), half a second on a slow machine. Never raises `KvmnetError`:
    without modprobe(8), or the right to load anything, it is as if nothing had been tried.
    """
    if Path("/sys/module", module).exists():
        yield
        return
    try:
        running = spawn(["modprobe", "--quiet", module])
    except KvmnetError:
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(KvmnetError):
            wait(running, LOAD_S, accept=range(-64, 256))
