"""The machines themselves: a test that trusts them must be able to."""

from __future__ import annotations

import time

import pytest

from machines import lan
from machines.conftest import Machines
from machines.images import MANAGERS
from machines.lan import HOST
from machines.machine import NIC


@pytest.mark.parametrize("manager", MANAGERS)
def test_a_container_keeps_its_files_and_address_when_the_power_is_cut(
    machines: Machines, manager: str
) -> None:
    with machines.container(manager, "static") as m:
        before = m.addresses(NIC), m.routes()
        assert f"{HOST}/24" in before[0]
        m.write("/etc/kept", "kept\n")
        etc = m.etc()
        m.power_cut()
        lan.wait_for("the same", lambda: (m.addresses(NIC), m.routes()) == before)
        assert m.etc() == etc
        assert m.kvmnet("bridge", "list").status == 0


def test_probers_see_a_silence(machines: Machines) -> None:
    """A cable that is pulled for 300 ms: what a bad change would look like."""
    with machines.container("networkd", "static") as m:
        with m.watched(every_ms=2) as watch:
            time.sleep(0.3)
            m.lan.ip("link set cable0 down")
            time.sleep(0.3)
            m.lan.ip("link set cable0 up")
            time.sleep(1)
        seen = watch.seen
        assert seen.silence.silence_ms > 280
        assert seen.silence.lost > 100
        assert seen.talk.intact and seen.talk.longest_ms > 200
        with m.watched(every_ms=2) as watch:
            time.sleep(0.5)
        assert watch.seen.silence.lost == 0
        assert watch.seen.silence.silence_ms < 100 + watch.seen.silence.own_ms
