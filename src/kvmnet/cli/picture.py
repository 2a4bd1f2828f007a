"""What the commands that look at a host share: where the State comes from, and words for cells."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kvmnet.adapters.files import read_text
from kvmnet.cli import output
from kvmnet.core.finding import some as some
from kvmnet.core.guest_addresses import GuestAddress, NicAddresses
from kvmnet.core.missing import elsewhere
from kvmnet.errors import InvalidInput
from kvmnet.flow.observe import Part, observe
from kvmnet.model.host import BridgeAttributes
from kvmnet.model.state import State
from kvmnet.model.virt import GuestNic

VIRT = frozenset({Part.NETWORKS, Part.GUESTS, Part.LEASES, Part.AGENTS})
ADDRESSES = frozenset({Part.LINKS, Part.NEIGHBOURS, Part.FORWARDING, *VIRT})


def read_state(args: argparse.Namespace, parts: frozenset[Part]) -> State:
    """The saved State that was asked for, else those parts of this host."""
    if args.state is None:
        return observe(getattr(args, "connect", None), parts)
    from kvmnet.formats import state_json  # late: saved States are rare

    if args.state == "-":
        data = sys.stdin.buffer.read(state_json.MAX_BYTES + 1)
        return state_json.parse(data.decode("utf-8", "surrogateescape"))
    path = Path(args.state)
    if not args.state or path.is_dir():
        raise InvalidInput(f"{args.state!a} is no saved State", hint="--state FILE")
    if path.is_char_device() or path.is_block_device():
        raise InvalidInput(f"{path} is a device, not a saved State", hint="-: standard input")
    if path.is_file() and path.stat().st_size > state_json.MAX_BYTES:
        raise InvalidInput(f"{path} is too big for a saved State")
    return state_json.parse(read_text(path))


def tell_unread(args: argparse.Namespace, state: State) -> None:
    """What could not be read, on standard error."""
    for item in state.unread:
        hint = f" ({item.hint})" if item.hint else ""
        output.say(args, f"could not read {item.what}: {item.why}{hint}")


def say_none(args: argparse.Namespace, state: State, what: str) -> None:
    """That there is nothing of libvirt's to list, unless that is only not known."""
    if virt_status(state) != 0:
        return
    uris = [x.uri for x in state.connections]
    where = f" on {', '.join(uris)}" if uris else ""
    other = elsewhere(state)
    output.say(args, f"there are no {what} to show{where}{f'; {other}' if other else ''}")


def virt_status(state: State) -> int:
    """Exit status of a command about libvirt's objects: 1 if no connection could be read."""
    return 0 if state.connections or not any(x.what.startswith("libvirt") for x in state.unread) \
        else 1  # fmt: skip


def host_status(state: State) -> int:
    """Exit status of a command about the host's own links: 1 if they could not be read."""
    return 1 if any(x.what == "links and addresses" for x in state.unread) else 0


def age(seconds: int | None) -> str:
    """`12 s`, `3 min`, `2 h`, `5 d`; nothing where it is not known."""
    if seconds is None:
        return ""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def address(found: GuestAddress) -> str:
    """`192.168.122.7 (lease 3 min, agent)`."""
    sources = (f"{x.source} {age(x.age_s)}".strip() if x.age_s else x.source for x in found.sources)
    return f"{found.ip} ({', '.join(dict.fromkeys(sources))})"


def addresses(known: NicAddresses) -> str:
    """A NIC's addresses for a table; link-local ones only where there is no other."""
    routable = [x for x in known.addresses if not x.ip.startswith("fe80:")]
    if routable or known.addresses:
        return ", ".join(map(address, routable or known.addresses))
    if known.present is not None:
        heard = age(known.present.age_s)
        return f"none known; heard {heard + ' ago' if heard else ''}".rstrip()
    return "-"


def source(nic: GuestNic) -> str:
    """`network:default`, `bridge:br0`, `user`."""
    return f"{nic.type}:{nic.source}" if nic.source else nic.type


def yes(value: bool | None) -> str:
    return "?" if value is None else "yes" if value else "no"


def stp(attributes: BridgeAttributes | None) -> str:
    if attributes is None:
        return "?"
    return f"on, {attributes.forward_delay_s:g} s" if attributes.stp else "off"


def link_state(up: bool, carrier: bool | None) -> str:
    """`up`, `down`, or `no carrier`."""
    if not up:
        return "down"
    return "no carrier" if carrier is False else "up"
