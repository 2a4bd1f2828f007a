import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmnet.core.macs import birthday_chance, chance_among, generate, uses_in
from kvmnet.errors import InvalidInput, Refused
from kvmnet.model.host import ForwardingEntry, Link, Neighbour
from kvmnet.model.state import State
from kvmnet.model.values import Ip, Mac
from kvmnet.model.virt import (
    AgentAddress,
    Guest,
    GuestNic,
    Lease,
    Network,
    NetworkConfig,
    NetworkIp,
    Reservation,
)


def mac(last: int) -> Mac:
    return Mac(f"52:54:00:00:00:{last:02x}")


def full_state() -> State:
    config = NetworkConfig(
        mode="nat",
        bridge_mac=mac(1),
        ips=(
            NetworkIp(
                family=4,
                address=Ip("192.0.2.1"),
                prefix_len=24,
                reservations=(Reservation(ip=Ip("192.0.2.9"), mac=mac(2)),),
            ),
        ),
    )
    return State(
        taken_at=0,
        hostname="h",
        networks=(
            Network(
                connection="qemu:///system", name="n", uuid="u", active=False,
                persistent=True, autostart=False, saved=config,
            ),
        ),
        guests=(
            Guest(
                connection="qemu:///system", name="web", uuid="w", state="running", id=1,
                live_nics=(GuestNic(mac=mac(3), type="network"),),
                saved_nics=(
                    GuestNic(mac=mac(3), type="network"),
                    GuestNic(mac=mac(4), type="user"),
                ),
                agent_addresses=(
                    AgentAddress(mac=mac(5), ip=Ip("192.0.2.3"), prefix_len=24, family=4, nic="e0"),
                ),
            ),
        ),
        leases=(
            Lease(connection="c", network="n", mac=mac(6), ip=Ip("192.0.2.4"), family=4),
            Lease(connection="c", network="n", mac=None, ip=Ip("2001:db8::4"), family=6),
        ),
        links=(
            Link(index=1, name="lo", kind="loopback", mac=Mac("00:00:00:00:00:00")),
            Link(index=2, name="eth0", kind="ethernet", mac=mac(7)),
        ),
        neighbours=(
            Neighbour(link="eth0", ip=Ip("192.0.2.5"), family=4, mac=mac(8)),
            Neighbour(link="eth0", ip=Ip("192.0.2.6"), family=4, state="FAILED"),
        ),
        forwarding=(
            ForwardingEntry(mac=mac(9), port="vnet0", bridge="virbr0"),
            ForwardingEntry(mac=Mac("33:33:00:00:00:01"), port="vnet0", bridge="virbr0"),
        ),
    )  # fmt: skip


def test_every_source_of_the_state_counts_and_groups_do_not() -> None:
    uses = uses_in(full_state())
    assert {use.mac for use in uses} == {mac(n) for n in range(1, 10)}
    kinds = {use.mac: use.kind for use in uses}
    assert kinds[mac(2)] == "reservation"
    assert kinds[mac(9)] == "forwarding"
    assert [u.where for u in uses if u.mac == mac(3)] == ["guest web on qemu:///system (running)"]


def test_a_hundred_thousand_are_distinct_and_free() -> None:
    taken = [mac(n) for n in range(256)]
    made = generate("52:54:00", 100_000, taken, os.urandom)
    assert len(set(made)) == len(made) == 100_000
    assert not set(made) & set(taken)
    assert all(m.startswith("52:54:00:") and len(m) == 17 for m in made)


@given(st.sets(st.integers(0, 255), max_size=250), st.data())
def test_a_small_prefix_is_used_to_its_last_address(used: set[int], data: st.DataObject) -> None:
    prefix = "52:54:00:00:00"
    taken = [mac(n) for n in used]
    count = data.draw(st.integers(1, 256 - len(used)))
    made = generate(prefix, count, taken, os.urandom)
    assert len(set(made)) == count
    assert not set(made) & set(taken)
    with pytest.raises(Refused, match="no room"):
        generate(prefix, 257 - len(used), taken, os.urandom)


def test_a_source_that_repeats_itself_still_gives_distinct_addresses() -> None:
    stream = iter([b"\x01\x01\x01\x02", b"\x02\x02", b"\x03\x04"])
    made = generate("52:54:00:00:00", 4, [], lambda _n: next(stream))
    assert made == (mac(1), mac(2), mac(3), mac(4))


@pytest.mark.parametrize("count", [0, -1, 1_000_001])
def test_senseless_counts_are_refused(count: int) -> None:
    with pytest.raises(InvalidInput):
        generate("52:54:00", count, [], os.urandom)


def test_the_odds_are_those_of_the_textbook() -> None:
    assert chance_among(1, 3) == 1 / 16_777_216
    assert chance_among(10**9, 3) == 1.0
    # 1 - exp(-n(n-1)/2N): a half is passed at about 1.18 * sqrt(N) = 4823 addresses
    assert 0.49 < birthday_chance(4823, 3) < 0.51
    assert birthday_chance(1, 3) == 0.0
