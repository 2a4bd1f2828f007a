"""What can be set of a bridge's port: read as `ip` prints it, said as `ip` takes it."""

from __future__ import annotations

from kvmnet.formats import iproute, port_options
from kvmnet.model.host import PortAttributes

NEW = """[{"ifindex":5,"ifname":"eth0","master":"br0","linkinfo":{"info_slave_kind":"bridge",
"info_slave_data":{"state":"forwarding","priority":32,"cost":2,"hairpin":false,"guard":false,
"root_block":false,"fastleave":false,"learning":true,"flood":true,"proxy_arp":false,
"proxy_arp_wifi":false,"multicast_router":1,"mcast_flood":true,"bcast_flood":true,
"mcast_to_unicast":false,"neigh_suppress":false,"group_fwd_mask":"0","group_fwd_mask_str":"0x0",
"vlan_tunnel":false,"isolated":false,"locked":false}}}]"""
SET = """[{"ifindex":5,"ifname":"eth0","master":"br0","linkinfo":{"info_slave_kind":"bridge",
"info_slave_data":{"state":"forwarding","priority":5,"cost":77,"hairpin":true,"guard":true,
"root_block":true,"fastleave":true,"learning":false,"flood":true,"proxy_arp":true,
"proxy_arp_wifi":true,"multicast_router":2,"mcast_flood":false,"bcast_flood":false,
"mcast_to_unicast":true,"neigh_suppress":true,"group_fwd_mask":"0x4008",
"group_fwd_mask_str":"0x4008","vlan_tunnel":true,"isolated":true,"locked":true,
"backup_port":"eth1"}}}]"""
WORDS = (
    "priority 5 guard on root_block on fastleave on proxy_arp on proxy_arp_wifi on mcast_router 2 "
    "mcast_flood off bcast_flood off mcast_to_unicast on group_fwd_mask 16392 neigh_suppress on "
    "vlan_tunnel on locked on backup_port eth1"
)


def port(text: str) -> PortAttributes:
    (link,) = iproute.parse_links(text)
    assert link.port is not None
    return link.port


def test_a_new_port_has_no_options() -> None:
    assert port(NEW) == PortAttributes(state="forwarding", cost=2)


def test_what_was_set_is_read_and_said_in_the_same_words() -> None:
    has = port(SET)
    assert has.cost == 77 and " ".join(has.options) == WORDS
    assert " ".join(port_options.changes(port(NEW), has)) == (
        f"learning off isolated on hairpin on {WORDS}"
    )
    assert port_options.changes(has, has) == []


def test_what_a_new_port_has_is_said_where_it_was_changed() -> None:
    back = " ".join(port_options.changes(port(SET), port(NEW)))
    assert back.startswith("learning on isolated off hairpin off priority 32 guard off")
    assert back.endswith("group_fwd_mask 0 neigh_suppress off vlan_tunnel off locked off "
                         "nobackup_port")  # fmt: skip
