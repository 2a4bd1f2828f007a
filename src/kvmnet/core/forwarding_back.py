"""What else the kernel sets when forwarding is turned on or off for all links, put back by an undo.

Each turn writes the `forwarding` of every link and of `default`, and IPv4's also the
`accept_redirects` of `all`: off means 1 there, whatever it was (`inet_forward_change` in
net/ipv4/devinet.c, `addrconf_fixup_forwarding` in net/ipv6/addrconf.c).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kvmnet.model.plan import PlannedStep, SetSysctl
from kvmnet.model.state import State

_FOLDERS = {
    "net/ipv4/ip_forward": "net/ipv4/conf",
    "net/ipv4/conf/all/forwarding": "net/ipv4/conf",
    "net/ipv6/conf/all/forwarding": "net/ipv6/conf",
}


def forwarding_back(state: State, steps: Iterable[PlannedStep]) -> tuple[PlannedStep, ...]:
    """Steps to be taken before those that turn forwarding on, so that the undo is exact.

    Each sets what the kernel will set by itself; what counts is its undo, which comes after that
    of forwarding and writes what was there. What an undo of forwarding leaves right has no step.
    """
    folders = dict.fromkeys(
        _FOLDERS[x.step.path]
        for x in steps
        if isinstance(x.step, SetSysctl) and x.step.path in _FOLDERS and x.step.value != "0"
    )
    return tuple(y for x in folders for y in _back(state, x))


def _back(state: State, folder: str) -> Iterator[PlannedStep]:
    start, end = folder.replace("/", ".") + ".", ".forwarding"
    for x in state.sysctls:
        link = x.name.removeprefix(start).removesuffix(end)
        if x.name != f"{start}{link}{end}" or link == "all" or x.value == "0":
            continue
        yield _step(f"{folder}/{link}/forwarding", x.name, "1", x.value)
    if folder == "net/ipv4/conf":
        name = f"{start}all.accept_redirects"
        now = state.sysctl(name)
        if now is not None and now != "1":
            yield _step(f"{folder}/all/accept_redirects", name, "0", now)


def _step(path: str, name: str, value: str, old: str) -> PlannedStep:
    return PlannedStep(
        step=SetSysctl(name=name, value=value, path=path),
        undo=SetSysctl(name=name, value=old, path=path),
    )
