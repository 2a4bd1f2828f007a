"""Guests' definitions that do not fit the host."""

from __future__ import annotations

import json

from kvmnet.lab import topology as t
from kvmnet.lab.faults.fault import (
    Breakage,
    Command,
    Fault,
    Look,
    Trial,
    always,
    command,
    ping,
    tolerant,
)
from kvmnet.lab.faults.stages import BRIDGE, GUEST, NETWORK, RUNNING_GUEST

_XML = """\
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64'>hvm</type></os>
  <devices>
    <controller type='usb' model='none'/>
    <interface type='{kind}'>
      <mac address='{mac}'/>
      <source {source}/>
      <rom enabled='no'/>
    </interface>
    <memballoon model='none'/>
  </devices>
</domain>
"""
"""A guest without a system: it can be started, and does nothing."""
_MAC = "52:54:00:7a:00:{number:02x}"


def define(name: str, kind: str, source: str, number: int) -> Command:
    """Define such a guest. `source` is the attribute of its NIC's source, `bridge='br0'`."""
    xml = _XML.format(name=name, kind=kind, source=source, mac=_MAC.format(number=number))
    return command("virsh", "define", "/dev/stdin", stdin=xml)


def forget(name: str) -> tuple[Command, ...]:
    """The end of a guest and of its definition."""
    return (tolerant("virsh", "destroy", name), tolerant("virsh", "undefine", name))


def _starts(name: str) -> Trial:
    return Trial(command=lambda look: command("virsh", "start", name), gone=True)


def _without_cable(look: Look) -> Breakage:
    tap = look.tap(GUEST)
    words = ("virsh", "domif-setlink", GUEST, tap)
    return Breakage(make=(command(*words, "down"),), mend=(tolerant(*words, "up"),))


def _tap_down(look: Look) -> Breakage:
    words = ("ip", "link", "set", look.tap(GUEST))
    return Breakage(make=(command(*words, "down"),), mend=(tolerant(*words, "up"),))


def _inside(script: str) -> Command:
    """A shell's script inside the guest, by its agent."""
    call = {"execute": "guest-exec", "arguments": {"path": "sh", "arg": ["-c", script]}}
    return command("virsh", "qemu-agent-command", GUEST, json.dumps(call))


def _wrong_subnet(look: Look) -> Breakage:
    words = ("virsh", "domif-setlink", GUEST, look.tap(GUEST))
    tried = " ".join(ping(look.address(GUEST)).argv)
    return Breakage(
        make=(
            _inside(f"ip address flush dev eth0 scope global; ip address add {_LAN_IP} dev eth0"),
            Command(argv=("sh", "-c", f"! {tried}"), patience_s=10.0),
        ),
        mend=(
            tolerant(*words, "down"),
            tolerant("sleep", "1"),  # a guest that looks too late sees no change
            tolerant(*words, "up"),  # its DHCP client asks anew
            tolerant("sh", "-c", f"for n in 1 2 3 4 5 6 7; do {tried} && break; done"),
        ),
    )


_LAN_IP = f"192.168.77.150/{t.LAN_PREFIX_LEN}"
_ANSWERS = Trial(command=lambda look: ping(look.address(GUEST)))

FAULTS = (
    Fault(
        name="bridge-missing",
        problem="bridge-missing",
        seen="a guest can not be started: Cannot get interface MTU on 'br7', no such device",
        how="the guest `lost` is to be on a bridge that nobody made",
        trial=_starts("lost"),
        prepare=always(make=(define("lost", "bridge", "bridge='br7'", 1),), mend=forget("lost")),
    ),
    Fault(
        name="bridge-missing-network",
        problem="bridge-missing",
        seen="a guest can not be started: Cannot get interface MTU on 'default', no such device",
        how="the guest `mixed` has the name of a libvirt network where a bridge's belongs",
        trial=_starts("mixed"),
        prepare=always(
            make=(define("mixed", "bridge", "bridge='default'", 2),), mend=forget("mixed")
        ),
    ),
    Fault(
        name="not-a-bridge",
        problem="not-a-bridge",
        seen=f"a guest can not be started: Unable to add bridge {t.HOST_NIC} port vnet0, operation "
        "not supported",
        how=f"the guest `direct` is to be on the bridge {t.HOST_NIC}, which is a NIC",
        trial=_starts("direct"),
        prepare=always(
            make=(define("direct", "bridge", f"bridge='{t.HOST_NIC}'", 3),),
            mend=forget("direct"),
        ),
    ),
    Fault(
        name="duplicate-identity",
        problem="duplicate-identity",
        seen="once both run, two guests fight for one address, and each loses connections when the "
        "other sends",
        how="the guests `twin1` and `twin2` have the same MAC address, as copied definitions have",
        trial=None,
        prepare=always(
            make=tuple(define(f"twin{x}", "network", "network='default'", 4) for x in (1, 2)),
            mend=(*forget("twin1"), *forget("twin2")),
        ),
    ),
    Fault(
        name="guests-before-bridge",
        problem="guests-before-bridge",
        seen="after the next reboot a guest on the bridge does not come up with the host",
        how="the guest `early` starts with the host; br0 is in no file and is not made then",
        trial=None,
        stages=(BRIDGE,),
        prepare=always(
            make=(
                define("early", "bridge", "bridge='br0'", 5),
                command("virsh", "autostart", "early"),
            ),
            mend=(tolerant("virsh", "autostart", "--disable", "early"), *forget("early")),
        ),
    ),
    Fault(
        name="guest-link-down",
        problem="guest-link-down",
        seen="a running guest has no network; inside it its NIC has no carrier",
        how=f"the link of the guest {GUEST} is set down, as pulling the cable does",
        trial=_ANSWERS,
        stages=(NETWORK, RUNNING_GUEST),
        touches=(f"the tap of {GUEST}",),
        prepare=_without_cable,
    ),
    Fault(
        name="tap-down",
        problem="tap-down",
        seen="a running guest has no network though its definition and the bridge are right",
        how=f"the tap of the guest {GUEST} is switched off on the host",
        trial=_ANSWERS,
        stages=(NETWORK, RUNNING_GUEST),
        touches=(f"the tap of {GUEST}",),
        prepare=_tap_down,
    ),
    Fault(
        name="wrong-subnet",
        problem="wrong-subnet",
        seen="a guest that was moved from the LAN to a network of libvirt's has no network there",
        how=f"the guest {GUEST} on the network default has an address of the LAN, set by hand",
        trial=_ANSWERS,
        stages=(NETWORK, RUNNING_GUEST),
        touches=(f"the addresses of {GUEST}",),
        prepare=_wrong_subnet,
    ),
)
