"""A bridge that asks for multicast listeners and does not hear a guest's answer."""

from __future__ import annotations

from kvmnet.errors import Refused
from kvmnet.lab import topology as t
from kvmnet.lab.faults.fault import Breakage, Fault, Look, Stage, Trial, command, ping, tolerant
from kvmnet.lab.faults.stages import BRIDGE

_GUEST = "srv"
_STAGE = Stage(
    what=f"a running guest {_GUEST} on the bridge br0",
    check=command("virsh", "domid", _GUEST),
    guest=_GUEST,
    on="bridge:br0",
)
_FILTER = """\
table bridge no_reports {{
  chain from_guest {{
    type filter hook prerouting priority filter; policy accept;
    iifname "{tap}" icmpv6 type {{ mld-listener-report, mld2-listener-report }} counter drop
  }}
}}
"""
_BRIDGE = "/sys/class/net/br0/bridge"
_OWN = ("mcast_querier", "mcast_query_response_interval", "mcast_snooping")
_SOON = "100"
"""Hundredths of a second until the bridge takes it that all who listen have answered."""


def _deaf(look: Look) -> Breakage:
    def set_br0(word: str, value: str) -> tuple[str, ...]:
        return ("ip", "link", "set", "br0", "type", "bridge", word, value)

    tap = look.tap(_GUEST)
    if look.done("test", "-e", f"/sys/class/net/br0/brif/{tap}").status != 0:
        raise Refused(
            f"the guest {_GUEST} is not on the bridge br0",
            why="this fault is about a guest there, and would add one of that name",
            hint="a new lab has none: kvmnet lab up --name other",
        )
    now = {x: look.out("cat", f"{_BRIDGE}/{x.replace('mcast', 'multicast')}").strip() for x in _OWN}
    return Breakage(
        make=(
            command("nft", "-f", "-", stdin=_FILTER.format(tap=tap)),
            # Off and on: what it knows of listeners is forgotten.
            command(*set_br0("mcast_snooping", "0")),
            command(*set_br0("mcast_query_response_interval", _SOON)),
            command(*set_br0("mcast_querier", "1")),
            command(*set_br0("mcast_snooping", "1")),
            command("ip", "-6", "neigh", "flush", "dev", t.PEER_NIC, where=t.PEER),
        ),
        mend=(
            tolerant("nft", "delete", "table", "bridge", "no_reports"),
            *(tolerant(*set_br0(word, value)) for word, value in now.items()),
        ),
    )


FAULTS = (
    Fault(
        name="multicast-snooping",
        problem="multicast-snooping",
        seen="a guest on the bridge reaches all by IPv6, and nobody finds it by IPv6 who has not "
        "just heard of it; IPv4 is fine",
        how="br0 asks who listens to multicast, as a querier does, and a filter drops what the "
        f"guest {_GUEST} answers: neighbour solicitations are kept from it",
        trial=Trial(command=lambda look: ping(look.address6(_GUEST), t.PEER)),
        stages=(BRIDGE, _STAGE),
        prepare=_deaf,
    ),
)
