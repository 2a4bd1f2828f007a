"""IPv6 forwarding and the host's own autoconfigured address.

A host that forwards is a router, and the kernel lets routers ignore router advertisements: with
`accept_ra` at its default of 1 the host's own address and default route run out some minutes after
forwarding was turned on. 2 means: accept them although this host forwards
(kernel: Documentation/networking/ip-sysctl.rst, `accept_ra`).
"""

from __future__ import annotations

from kvmnet.model.plan import PlannedStep, RemoveFile, SetSysctl, Step, WriteFile
from kvmnet.model.state import State

ACCEPT_RA_FILE = "/etc/sysctl.d/60-kvmnet-accept-ra.conf"

_HEADER = """\
# Written by kvmnet. These NICs get their IPv6 address from the LAN's router, and this host forwards
# IPv6 for its guests: without 2 the kernel would ignore the router and the address would run out.
"""


def autoconfigured_nics(state: State) -> tuple[str, ...]:
    """NICs whose IPv6 routes come from router advertisements that the kernel itself follows."""
    by_router = dict.fromkeys(
        route.link
        for route in state.routes
        if route.family == 6 and route.protocol == "ra" and route.link is not None
    )
    return tuple(
        name for name in by_router if state.sysctl(f"net.ipv6.conf.{name}.accept_ra") == "1"
    )


def accept_ra_steps(state: State, old_file: str | None) -> tuple[PlannedStep, ...]:
    """The steps that keep the host's own IPv6 alive when forwarding is turned on."""
    nics = autoconfigured_nics(state)
    steps = [
        PlannedStep(
            step=_set(name, "2"),
            undo=_set(name, "1"),
        )
        for name in nics
    ]
    lines = [f"net/ipv6/conf/{name}/accept_ra = 2" for name in nics]
    missing = [line for line in lines if line not in (old_file or "").splitlines()]
    if missing:
        before = old_file or _HEADER
        if not before.endswith("\n"):  # somebody's editor left the last line open
            before += "\n"
        text = before + "".join(f"{line}\n" for line in missing)
        undo: Step = (
            RemoveFile(path=ACCEPT_RA_FILE)
            if old_file is None
            else WriteFile(path=ACCEPT_RA_FILE, text=old_file)
        )
        steps.append(PlannedStep(step=WriteFile(path=ACCEPT_RA_FILE, text=text), undo=undo))
    return tuple(steps)


def _set(nic: str, value: str) -> SetSysctl:
    return SetSysctl(
        name=f"net.ipv6.conf.{nic}.accept_ra",
        value=value,
        path=f"net/ipv6/conf/{nic}/accept_ra",
    )
