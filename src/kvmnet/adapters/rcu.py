"""Has the kernel not take its time while a NIC becomes, or ceases to be, a bridge's port.

When a port goes, the kernel lets it forward nothing, then waits until no processor can still be
using its VLANs, and only then gives its frames back to the host (net/bridge/br_vlan.c,
nbp_vlan_flush: synchronize_rcu). Such a wait takes some 10 to 50 ms, and every frame that comes in
meanwhile is lost. `/sys/kernel/rcu_expedited` makes it well below a millisecond, for a moment's
interrupts on all processors (Documentation/RCU; kernel/ksysfs.c).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

EXPEDITED = Path("/sys/kernel/rcu_expedited")
MARK = Path("/run/kvmnet/rcu_expedited")
"""There as long as it is on by kvmnet, so that whoever undoes for a killed one takes it off."""


_FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""The kernel's constant (include/linux/proc_ns.h, PROC_PID_INIT_INO)."""


def _is_whole_machine() -> bool:
    """Whether this network is the machine's own: a container's or a lab's has to do without.

    Several of those share the kernel, and nobody would put right what one of them left behind.
    """
    return os.readlink("/proc/self/ns/pid") == _FIRST_PID_NAMESPACE and os.readlink(
        "/proc/self/ns/net"
    ) == os.readlink("/proc/1/ns/net")


def hurried() -> contextlib.AbstractContextManager[None]:
    """The block, with short waits in the kernel. Where that can't be, all takes its time."""
    with contextlib.suppress(OSError):
        if _is_whole_machine():
            return switched_on(EXPEDITED, MARK)
    return contextlib.nullcontext()


@contextlib.contextmanager
def switched_on(switch: Path, mark: Path) -> Iterator[None]:
    """The block, with that switch on if it can be. One that somebody else turned on stays on.

    It is off again afterwards; where kvmnet was killed, its guard puts it right (`put_right`).
    """
    on = False
    try:
        with contextlib.suppress(OSError, ValueError):
            if mark.exists() or not int(switch.read_text()):
                on = True  # whatever comes of it, it is to be off afterwards
                mark.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                mark.touch()
                switch.write_text("1\n")
        yield
    finally:
        if on:
            switch_off(switch, mark)


def put_right() -> None:
    """Switch off what a kvmnet that was killed had switched on. Never raises."""
    with contextlib.suppress(OSError):
        if MARK.exists() and _is_whole_machine():
            switch_off(EXPEDITED, MARK)


def switch_off(switch: Path, mark: Path) -> None:
    """The switch off, and then the mark away."""
    with contextlib.suppress(OSError):
        switch.write_text("0\n")
    with contextlib.suppress(OSError):
        mark.unlink()
