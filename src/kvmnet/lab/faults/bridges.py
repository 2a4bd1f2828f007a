"""Bridges on the host, their ports and their uplink."""

from __future__ import annotations

import json

from kvmnet.lab import topology as t
from kvmnet.lab.faults.fault import (
    Breakage,
    Command,
    Fault,
    Look,
    Trial,
    attempt,
    command,
    ping,
    probe,
    reach,
    tolerant,
)
from kvmnet.lab.faults.libvirt_nft import network
from kvmnet.lab.faults.stages import BRIDGE, GUEST, NETWORK, RUNNING_GUEST

_OTHER_MAC = "02:4c:41:42:00:99"
_NEW_NAME = "enp4s0"
_FOREVER = 2**32 - 1
"""How `ip` prints a life without end, in seconds."""
_NEW_DELAY = ("stp_state", "1", "forward_delay", "1500")


def _stp(look: Look) -> Breakage:
    bridge = "/sys/class/net/br0/bridge"
    delay = look.out("cat", f"{bridge}/forward_delay").strip()
    on = look.out("cat", f"{bridge}/stp_state").strip()
    return Breakage(
        make=(
            command("ip", "link", "set", "br0", "type", "bridge", *_NEW_DELAY),
            # STP begins for a port when it comes up, as it does when the bridge is made.
            command("ip", "link", "set", t.HOST_NIC, "down"),
            command("ip", "link", "set", t.HOST_NIC, "up"),
        ),
        mend=(  # in two steps: a delay below two seconds is refused while STP is on
            command("ip", "link", "set", "br0", "type", "bridge", "stp_state", on),
            command("ip", "link", "set", "br0", "type", "bridge", "forward_delay", delay),
            # A port that was waiting goes on to wait, for nothing.
            *(
                tolerant("bridge", "link", "set", "dev", port, "state", "3")
                for port in look.out("ls", "/sys/class/net/br0/brif").split()
            ),
            tolerant("ip", "-6", "address", "flush", "dev", t.HOST_NIC),  # of its coming up
        ),
    )


def _ip_left(look: Look) -> Breakage:
    routes = look.out("ip", "-o", "-4", "route", "show", "dev", "br0").splitlines()
    onto_port = [
        f"address del {t.HOST_IP}/{t.LAN_PREFIX_LEN} dev br0",
        f"address add {t.HOST_IP}/{t.LAN_PREFIX_LEN} brd + dev {t.HOST_NIC}",
        f"route replace default via {t.ROUTER_IP} dev {t.HOST_NIC}",
    ]
    return Breakage(
        make=(command("ip", "-batch", "-", stdin="\n".join(onto_port) + "\n"),),
        mend=(
            tolerant("ip", "address", "del", f"{t.HOST_IP}/{t.LAN_PREFIX_LEN}",
                     "dev", t.HOST_NIC),
            *_addresses(look, "br0"),
            *(tolerant("ip", "route", "replace", *_words(x), "dev", "br0")
              for x in routes),
        ),
    )  # fmt: skip


def _words(route: str) -> list[str]:
    """A route as `ip route show` prints it, as words that make it again."""
    return [x for x in route.split() if x != "linkdown"]


def _addresses(look: Look, link: str) -> tuple[Command, ...]:
    """The commands that give a link the IPv4 addresses that it has now."""
    found = json.loads(look.out("ip", "-j", "-4", "address", "show", "dev", link))
    return tuple(
        tolerant("ip", "address", "add", f"{x['local']}/{x['prefixlen']}",
                 *(("brd", x["broadcast"]) if "broadcast" in x else ()), "dev", link,
                 "valid_lft", _life(x["valid_life_time"]),
                 "preferred_lft", _life(x["preferred_life_time"]))
        for entry in found for x in entry.get("addr_info", ())
    )  # fmt: skip


def _life(seconds: int) -> str:
    return "forever" if seconds == _FOREVER else str(seconds)


def _mac(look: Look) -> Breakage:
    now = look.out("cat", "/sys/class/net/br0/address").strip()
    return Breakage(
        make=(command("ip", "link", "set", "br0", "address", _OTHER_MAC),),
        mend=(command("ip", "link", "set", "br0", "address", now),),
    )


_INTERFACES = f"""\
auto lo
iface lo inet loopback

auto br0
iface br0 inet static
    address {t.HOST_IP}/{t.LAN_PREFIX_LEN}
    gateway {t.ROUTER_IP}
    bridge_ports {t.HOST_NIC}
    bridge_stp off
    bridge_fd 0
"""
_FILE = "/etc/network/interfaces"


def _renamed(look: Look) -> Breakage:
    before = look.done("cat", _FILE)
    back = (
        command("tee", _FILE, stdin=before.stdout)
        if before.status == 0
        else tolerant("rm", "-f", _FILE)
    )
    rename = [
        f"link set {t.HOST_NIC} nomaster",
        f"link set {t.HOST_NIC} down",
        f"link set {t.HOST_NIC} name {_NEW_NAME}",
    ]
    return Breakage(
        make=(
            command("mkdir", "-p", "/etc/network"),
            command("tee", _FILE, stdin=_INTERFACES),
            command("ip", "-batch", "-", stdin="\n".join(rename) + "\n"),
        ),
        mend=(
            back,
            tolerant("ip", "link", "set", _NEW_NAME, "down"),
            tolerant("ip", "link", "set", _NEW_NAME, "name", t.HOST_NIC),
            command("ip", "link", "set", t.HOST_NIC, "up"),
            command("ip", "link", "set", t.HOST_NIC, "master", "br0"),
            # While it was no port it took addresses and routes of its own.
            tolerant("ip", "-6", "address", "flush", "dev", t.HOST_NIC),
            tolerant("ip", "-6", "route", "flush", "dev", t.HOST_NIC),
        ),
    )


def _down(look: Look) -> Breakage:
    bridge, _ = network(look)
    return Breakage(
        make=(command("ip", "link", "set", bridge, "down"),),
        mend=(tolerant("ip", "link", "set", bridge, "up"),),
    )


_PORTLESS_IP = "10.99.0.1"
_UNITS = {
    "50-br9.netdev": "[NetDev]\nName=br9\nKind=bridge\n",
    "50-br9.network": f"[Match]\nName=br9\n\n[Network]\nAddress={_PORTLESS_IP}/24\n",
}
_UNIT_FOLDER = "/etc/systemd/network"
_NETWORKD = "/run/systemd/netif"
"""Where it runs there is this folder."""


def _portless(look: Look) -> Breakage:
    del look
    return Breakage(
        make=(
            command("mkdir", "-p", _UNIT_FOLDER, _NETWORKD),
            *(
                command("tee", f"{_UNIT_FOLDER}/{name}", stdin=text)
                for name, text in _UNITS.items()
            ),
            command("ip", "link", "add", "br9", "type", "bridge", "stp_state", "0"),
            command("ip", "link", "set", "br9", "up"),
            # A new bridge pretends to have a carrier until its first port is gone again.
            command("ip", "tuntap", "add", "dev", "br9-guest", "mode", "tap"),
            command("ip", "link", "set", "br9-guest", "master", "br9"),
            command("ip", "link", "delete", "br9-guest"),
        ),
        mend=(
            tolerant("ip", "link", "delete", "br9"),
            *(tolerant("rm", "-f", f"{_UNIT_FOLDER}/{name}") for name in _UNITS),
            tolerant("rmdir", "-p", _NETWORKD),
        ),
    )


def _orphan(look: Look) -> Breakage:
    tap = look.tap(GUEST)
    bridge = look.out("readlink", f"/sys/class/net/{tap}/master").strip().rpartition("/")[2]
    return Breakage(
        make=(command("ip", "link", "set", tap, "nomaster"),),
        mend=(tolerant("ip", "link", "set", tap, "master", bridge),),
    )


FAULTS = (
    Fault(
        name="stp-delay",
        problem="stp-delay",
        seen="after the bridge came up, and for every guest that is plugged in, nothing is heard "
        "for 30 s; DHCP and PXE give up before",
        how="STP on br0 with a forward delay of 15 s, as NetworkManager makes bridges",
        trial=reach(t.ROUTER_IP),
        stages=(BRIDGE,),
        touches=("the bridge's way to the LAN",),
        prepare=_stp,
    ),
    Fault(
        name="ip-left-on-port",
        problem="ip-left-on-port",
        seen="the host is cut off from the LAN since the bridge was made; guests on it are fine",
        how="the host's address and default route are on eth1, which is a port of br0",
        trial=reach(t.ROUTER_IP),
        stages=(BRIDGE,),
        touches=("the bridge's way to the LAN",),
        prepare=_ip_left,
    ),
    Fault(
        name="bridge-mac-differs",
        problem="bridge-mac-differs",
        seen="the host has another address by DHCP than before it had a bridge",
        how="br0 has a MAC address of its own instead of its port's",
        trial=attempt("grep", "-q", t.HOST_MAC, "/sys/class/net/br0/address"),
        stages=(BRIDGE,),
        prepare=_mac,
    ),
    Fault(
        name="port-renamed",
        problem="port-renamed",
        seen="after new hardware or a new kernel the bridge leads nowhere: the host and all "
        "guests on it are off the LAN",
        how=f"the NIC is called {_NEW_NAME} now, {_FILE} still names {t.HOST_NIC} as br0's port",
        trial=reach(t.ROUTER_IP),
        stages=(BRIDGE,),
        touches=("the bridge's way to the LAN",),
        prepare=_renamed,
    ),
    Fault(
        name="bridge-down",
        problem="bridge-down",
        seen="guests on a network have no network at all, not even the host answers them",
        how="the network's bridge is switched off",
        trial=probe("network:default", "link"),
        stages=(NETWORK,),
        prepare=_down,
    ),
    Fault(
        name="portless-bridge-address",
        problem="portless-bridge-address",
        seen="guests on a bridge without a NIC find no gateway and no DHCP server when they start",
        how="br9 is a bridge of systemd-networkd without ports; networkd gives it its address only "
        "while it has a carrier",
        trial=Trial(command=lambda look: ping(_PORTLESS_IP), gone=True),
        prepare=_portless,
    ),
    Fault(
        name="orphaned-tap",
        problem="orphaned-tap",
        seen="a running guest lost its network and does not know: its link is up, nobody answers",
        how=f"the tap of the guest {GUEST} is taken out of its bridge",
        trial=Trial(command=lambda look: ping(look.address(GUEST))),
        stages=(NETWORK, RUNNING_GUEST),
        touches=(f"the tap of {GUEST}",),
        prepare=_orphan,
    ),
)
