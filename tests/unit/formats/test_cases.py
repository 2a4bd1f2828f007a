"""Golden folders: what real tools print, and what kvmnet makes of it.

A new case is a new folder `cases/PARSER/NAME` with `input.txt` and `expected.json`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from kvmnet.formats import (
    docker,
    domain_xml,
    interfaces,
    iproute,
    iproute_routes,
    iptables,
    leases,
    netplan,
    networkd,
    networkmanager,
    nft,
    nics,
    port_facts,
    sockets,
)

CASES = Path(__file__).parent / "cases"


def _nft(folder: Path, text: str) -> object:
    return nft.parse(text, nft.parse_texts((folder / "texts.txt").read_text()))


PARSERS: dict[str, Callable[[Path, str], object]] = {
    "agent": lambda _, text: leases.agent_addresses(text),
    "bridge_mdb": lambda _, text: port_facts.parse_listeners(text),
    "bridge_vlan": lambda _, text: port_facts.parse_vlans(text),
    "docker": lambda _, text: docker.parse(text),
    "domain": lambda _, text: domain_xml.parse(text),
    "interfaces": lambda _, text: interfaces.parse(text, "/etc/network/interfaces"),
    "iproute_addr": lambda _, text: (iproute.parse_links(text), iproute.parse_addresses(text)),
    "iproute_fdb": lambda _, text: iproute.parse_forwarding(text),
    "iproute_neigh": lambda _, text: iproute.parse_neighbours(text),
    "iproute_proxy": lambda _, text: iproute.parse_neighbours(text),
    "iproute_route4": lambda _, text: iproute_routes.parse_routes(text, 4),
    "iproute_route6": lambda _, text: iproute_routes.parse_routes(text, 6),
    "iproute_rule4": lambda _, text: iproute_routes.parse_rules(text, 4),
    "iproute_rule6": lambda _, text: iproute_routes.parse_rules(text, 6),
    "iptables": lambda folder, text: iptables.parse(
        text, backend="iptables-nft", family="ip6" if folder.name == "ipv6" else "ip"
    ),
    "iptables_legacy": lambda _, text: iptables.parse(text, backend="iptables-legacy", family="ip"),
    "iw_info": lambda _, text: nics.parse_wireless(text),
    "keyfile": lambda _, text: networkmanager.parse_keyfile(text),
    "netplan": lambda _, text: netplan.parse(text, "/etc/netplan/x.yaml"),
    "networkd_state": lambda _, text: networkd.parse_link_state(text),
    "networkd_unit": lambda _, text: networkd.parse_unit(text),
    "nft": _nft,
    "nm_devices": lambda _, text: networkmanager.parse_devices(text),
    "sockets": lambda _, text: sockets.parse(text),
}
FOLDERS = sorted(x.parent for x in CASES.glob("*/*/input.txt"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda x: f"{x.parent.name}-{x.name}")
def test_case(folder: Path) -> None:
    found = PARSERS[folder.parent.name](folder, (folder / "input.txt").read_text())
    expected = msgspec.json.decode((folder / "expected.json").read_bytes())
    assert msgspec.json.decode(msgspec.json.encode(found)) == expected


def test_every_parser_has_a_case() -> None:
    assert {x.parent.name for x in FOLDERS} == set(PARSERS)
