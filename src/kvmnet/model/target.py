"""What a guest's NIC can be put on, as users write it: `network:lan`, `bridge:br0`, `user`, …

The words are those of `--to` and `--from`; what they mean to libvirt is told in
https://libvirt.org/formatdomain.html#network-interfaces.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

from msgspec import Struct

from kvmnet.errors import InvalidInput
from kvmnet.model.values import parse_nic_name, parse_object_name
from kvmnet.model.virt import GuestNic

MacvtapMode = Literal["bridge", "private", "vepa", "passthrough"]
UserBackend = Literal["passt", "slirp"]

FORMS = "network:NAME, bridge:NAME, direct:NIC[:MODE], user[:passt|:slirp]"

_SCHEMA_NAME = re.compile(r"[A-Za-z0-9_.\\-]+")
"""What `deviceName` in libvirt's schema (basictypes.rng) takes of a kernel's name for a link."""


class NetworkTarget(Struct, frozen=True, kw_only=True, tag="network"):
    """A libvirt network."""

    name: str

    def __str__(self) -> str:
        return f"network:{self.name}"


class BridgeTarget(Struct, frozen=True, kw_only=True, tag="bridge"):
    """A bridge of the host."""

    name: str

    def __str__(self) -> str:
        return f"bridge:{self.name}"


class DirectTarget(Struct, frozen=True, kw_only=True, tag="direct"):
    """A macvtap on a NIC of the host."""

    nic: str
    mode: MacvtapMode | None = None
    """None: the mode that the NIC has if it is a macvtap already, else `bridge`."""

    def __str__(self) -> str:
        return f"direct:{self.nic}" + (f":{self.mode}" if self.mode else "")


class UserTarget(Struct, frozen=True, kw_only=True, tag="user"):
    """A program of the user that runs the guest: passt, or what QEMU has built in (slirp)."""

    backend: UserBackend | None = None
    """None: passt where libvirt has it (9.0 and later)."""

    def __str__(self) -> str:
        return "user" + (f":{self.backend}" if self.backend else "")


Target = NetworkTarget | BridgeTarget | DirectTarget | UserTarget


def parse_target(text: str) -> Target:
    """The value of `--to` or `--from`. Raises `InvalidInput`, with the forms that there are."""
    kind, colon, rest = text.partition(":")
    if kind == "user":
        return _user(rest, given=bool(colon))
    if kind not in {"network", "bridge", "direct"}:
        raise InvalidInput(
            f"{text[:60]!a} is nothing that a NIC can be put on",
            why=f"the forms are {FORMS}",
            hint=_meant(text),
        )
    if not rest:
        what = {"network": "network", "bridge": "bridge", "direct": "host's NIC"}[kind]
        raise InvalidInput(
            f"{text!a} does not say which {what}",
            hint=f"an example: {_EXAMPLES[kind]}",
        )
    if kind == "network":
        return NetworkTarget(name=parse_object_name(rest, "network"))
    if kind == "bridge":
        return BridgeTarget(name=_link_name(rest))
    return _direct(rest)


_EXAMPLES = {"network": "network:default", "bridge": "bridge:br0", "direct": "direct:eth0"}


def _meant(text: str) -> str:
    if text in {"nat", "default", "network"}:
        return "network:default"
    if text.startswith("macvtap"):
        return "direct:NIC"
    return "bridge:br0"


def _user(backend: str, *, given: bool) -> UserTarget:
    if not given:
        return UserTarget()
    for known in get_args(UserBackend):
        if backend == known:
            return UserTarget(backend=known)
    raise InvalidInput(
        f"{backend[:40]!a} is no backend of a user's network", hint="user:passt or user:slirp"
    )


def _direct(rest: str) -> DirectTarget:
    nic, colon, mode = rest.partition(":")
    if not colon:
        return DirectTarget(nic=_link_name(nic))
    for known in get_args(MacvtapMode):
        if mode == known:
            return DirectTarget(nic=_link_name(nic), mode=known)
    raise InvalidInput(
        f"{mode[:40]!a} is no mode of a macvtap",
        why=f"there are {', '.join(get_args(MacvtapMode))}",
        hint="direct:eth0:bridge",
    )


def _link_name(text: str) -> str:
    name = parse_nic_name(text)
    if not _SCHEMA_NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!a} can not stand in a guest's definition",
            why="libvirt's schema takes letters, digits and _ . - in the name of a bridge or NIC",
        )
    return name


def target_of(nic: GuestNic) -> Target | None:
    """What the NIC is on now, names as they stand in its definition; None: nothing of the four."""
    if nic.type == "user":
        return UserTarget(backend="passt" if nic.backend == "passt" else "slirp")
    if nic.source is None:
        return None
    if nic.type == "network":
        return NetworkTarget(name=nic.source)
    if nic.type == "bridge":
        return BridgeTarget(name=nic.source)
    if nic.type == "direct":  # without a mode libvirt takes vepa
        modes = (x for x in get_args(MacvtapMode) if x == (nic.source_mode or "vepa"))
        return DirectTarget(nic=nic.source, mode=next(modes, None))
    return None


def is_on(nic: GuestNic, target: Target) -> bool:
    """Whether the NIC is there already; a mode or backend that is not given may be any."""
    here = target_of(nic)
    match target, here:
        case DirectTarget(mode=None), DirectTarget():
            return target.nic == here.nic
        case UserTarget(backend=None), UserTarget():
            return True
        case _:
            return target == here


def place(nic: GuestNic) -> str:
    """Where the NIC is, for people: `network:default`, `hostdev`, `mcast 230.0.0.1:5558`."""
    here = target_of(nic)
    if here is not None:
        return str(here)
    return f"{nic.type} {nic.source}" if nic.source else nic.type
