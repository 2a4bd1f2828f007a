"""One guest's addresses from all sources: merged, dated, and contradicted."""

from __future__ import annotations

from typing import Any

import msgspec

from kvmnet.core.guest_addresses import NicAddresses, guest_addresses
from kvmnet.model.host import ForwardingEntry, Link, Neighbour
from kvmnet.model.state import State
from kvmnet.model.values import Ip, Mac
from kvmnet.model.virt import AgentAddress, Guest, GuestNic, Lease, Network, NetworkConfig

URI = "qemu:///system"
NOW = 10_000
A, B = Mac("52:54:00:00:00:0a"), Mac("52:54:00:00:00:0b")
DEFAULT = Network(
    connection=URI, name="default", uuid="n", active=True, persistent=True, autostart=True,
    live=NetworkConfig(mode="nat", bridge="virbr0"),
)  # fmt: skip


def guest(name: str, mac: Mac, *ips: str, tap: str = "vnet0", agent: str = "connected") -> Guest:
    told = tuple(
        AgentAddress(mac=mac, ip=Ip(x), prefix_len=24, family=6 if ":" in x else 4, nic="ens3")
        for x in ips
    )
    nic = GuestNic(mac=mac, type="network", source="default", target=tap)
    return Guest(
        connection=URI, name=name, uuid=name, state="running", id=1, live_nics=(nic,),
        agent=agent, agent_addresses=told,
    )  # fmt: skip


def lease(mac: Mac, ip: str, left: int = 3000) -> Lease:
    return Lease(
        connection=URI, network="default", mac=mac, ip=Ip(ip), family=4, expires_at=NOW + left
    )


def neighbour(mac: Mac, ip: str, state: str = "REACHABLE", age: int = 2) -> Neighbour:
    return Neighbour(link="virbr0", ip=Ip(ip), family=4, mac=mac, state=state, age_s=age)


def known(*guests: Guest, **parts: Any) -> NicAddresses:
    links = tuple(
        Link(index=i, name=g.live_nics[0].target or "", kind="tap", master="virbr0")
        for i, g in enumerate(guests, 5)
    )
    state = State(
        taken_at=NOW, hostname="h", networks=(DEFAULT,), guests=guests, links=links, **parts
    )
    return guest_addresses(state)[0].nics[0]


def test_all_sources_agree() -> None:
    found = known(
        guest("web", A, "192.168.122.5", "fe80::1"),
        leases=(lease(A, "192.168.122.5"),),
        neighbours=(neighbour(A, "192.168.122.5"),),
        forwarding=(ForwardingEntry(mac=A, port="vnet0", bridge="virbr0", age_s=7),),
    )
    first = found.addresses[0]
    assert (first.ip, first.prefix_len) == ("192.168.122.5", 24)
    assert [(x.source, x.age_s) for x in first.sources] == [
        ("agent", 0),
        ("lease", 600),
        ("neighbour", 2),
    ]
    assert found.addresses[-1].ip == "fe80::1"
    assert found.present is not None
    assert (found.present.port, found.present.age_s) == ("vnet0", 7)
    assert found.disagreements == ()
    assert found.bridge == "virbr0"


def test_stale_lease_against_the_agent() -> None:
    found = known(guest("web", A, "192.168.122.9"), leases=(lease(A, "192.168.122.5"),))
    assert found.disagreements == (
        "the lease says 192.168.122.5, the guest's agent says 192.168.122.9",
    )


def test_the_lease_of_a_network_that_was_left_comes_after_what_is_there_now() -> None:
    left = guest("web", A, agent="unknown")
    nic = msgspec.structs.replace(left.live_nics[0], type="bridge", source="br0", target=None)
    moved = msgspec.structs.replace(left, live_nics=(nic,))
    seen = msgspec.structs.replace(neighbour(A, "192.0.2.7"), link="br0")
    state = State(
        taken_at=NOW, hostname="h", networks=(DEFAULT,), guests=(moved,),
        leases=(lease(A, "192.168.122.5"),), neighbours=(seen,),
    )  # fmt: skip
    found = guest_addresses(state)[0].nics[0]
    assert [x.ip for x in found.addresses] == ["192.0.2.7", "192.168.122.5"]
    told = known(guest("web", A, "192.168.122.9"), leases=(lease(A, "192.168.122.5"),))
    assert [x.ip for x in told.addresses] == ["192.168.122.9", "192.168.122.5"]
    stays = known(guest("web", A), leases=(lease(A, "192.168.122.5"),))
    assert [x.ip for x in stays.addresses] == ["192.168.122.5"]


def test_lease_against_what_the_host_sees() -> None:
    sees = (neighbour(A, "192.168.122.9"),)
    found = known(
        guest("web", A, agent="none"), leases=(lease(A, "192.168.122.5"),), neighbours=sees
    )
    assert found.disagreements == (
        "the lease says 192.168.122.5, the host sees 192.168.122.9 (virbr0 REACHABLE)",
    )


def test_an_old_neighbour_contradicts_nobody() -> None:
    sees = (neighbour(A, "192.168.122.9", "STALE", 4000),)
    found = known(
        guest("web", A, agent="none"), leases=(lease(A, "192.168.122.5"),), neighbours=sees
    )
    assert found.disagreements == ()
    assert len(found.addresses) == 2


def test_one_address_and_two_macs() -> None:
    found = known(
        guest("web", A, "192.168.122.5"),
        guest("db", B, tap="vnet1"),
        neighbours=(neighbour(B, "192.168.122.5"),),
    )
    assert found.disagreements == (f"192.168.122.5 is also used by {B}",)


def test_one_mac_and_two_guests() -> None:
    found = known(guest("web", A), guest("clone", A, tap="vnet1"))
    assert found.disagreements == ("its MAC is also that of clone",)


def test_mac_heard_behind_another_port() -> None:
    found = known(
        guest("web", A),
        forwarding=(ForwardingEntry(mac=A, port="eth0", bridge="br0", age_s=1),),
    )
    assert found.disagreements == ("its MAC was heard behind eth0, not behind its tap vnet0",)


def test_infinite_lease_has_no_age() -> None:
    forever = Lease(connection=URI, network="default", mac=A, ip=Ip("192.168.122.5"), family=4)
    found = known(guest("web", A, agent="none"), leases=(forever,))
    assert found.addresses[0].sources[0].age_s is None


def test_nothing_known() -> None:
    found = known(guest("web", A, agent="none"))
    assert (found.addresses, found.present, found.disagreements) == ((), None, ())
