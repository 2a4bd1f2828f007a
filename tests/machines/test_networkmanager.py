"""NetworkManager spoken to over D-Bus: what it refuses, gives up or does not answer."""

from __future__ import annotations

import pytest

from machines import scenarios
from machines.conftest import Machines
from machines.lan import wait_for
from machines.machine import Machine
from machines.scenarios import CREATE

LENT = "/run/kvmnet/lent"
"""There while the host's addresses are the loopback's, and NetworkManager brings up a profile."""
SERVERLESS = """
ip link add far type veth peer name near
ip link set far up
nmcli device set near managed yes
nmcli connection add type ethernet con-name lonely ifname near autoconnect no \
    ipv4.method auto ipv4.dhcp-timeout 2 ipv4.may-fail no ipv6.method disabled >&2
nmcli -g connection.uuid connection show lonely
"""


def inside(m: Machine, code: str, *, check: bool = True) -> str:
    """What Python code prints in the machine that has kvmnet's modules for NetworkManager."""
    start = (
        "from kvmnet.adapters import manager_networkmanager as m, networkmanager_bus as b, nmcli\n"
    )
    return m.run(["python3", "-c", start + code], check=check).stdout.strip()


@pytest.mark.parametrize(("config", "later_ms"), [("static", 0), ("dhcp", 30), ("static", 60)])
def test_killed_while_it_waits_for_networkmanager_nothing_stays_lent(
    machines: Machines, config: str, later_ms: int
) -> None:
    with machines.container("networkmanager", config) as m:
        before = scenarios.look(m)
        done = m.kill_at(f"path:{LENT}+{later_ms}", ["kvmnet", *CREATE, m.uplink])
        assert done.stdout.startswith("killed"), done
        scenarios.assert_back(m, before, scenarios.BACK_S)
        scenarios.assert_nothing_open(m)
        assert m.run(["test", "-e", LENT], check=False).status == 1


def test_links_that_are_asked_for_in_portions_are_all_seen(machines: Machines) -> None:
    with machines.container("networkmanager", "static") as m:
        m.script("for n in $(seq 200); do ip link add many-$n type bridge; done")

        def all_seen() -> bool:
            names = inside(m, "print(*(x.name for x in b.overview().devices))").split()
            return len([x for x in names if x.startswith("many-")]) == 200

        wait_for("all links", all_seen, 30)
        active = inside(m, "print(*(x.links for x in b.active() if not x.external))")
        assert m.uplink in active, active


def test_what_networkmanager_gives_up_or_refuses_is_told_with_its_reason(
    machines: Machines,
) -> None:
    call = (
        "from kvmnet.errors import KvmnetError\n"
        "try: m._up({!r}, {!r}, 30)\n"
        "except KvmnetError as error: print(type(error).__name__, error.what, error.why)\n"
    )
    with machines.container("networkmanager", "static") as m:
        uuid = m.script(SERVERLESS).strip()
        said = inside(m, call.format(uuid, "near"))
        assert said.startswith("Failed") and "ip-config-unavailable" in said, said
        said = inside(m, call.format(uuid, m.uplink))  # it is not for that link
        assert said.startswith("CommandFailed") and m.uplink in said, said
        unknown = "00000000-0000-4000-8000-000000000000"
        said = inside(m, call.format(unknown, m.uplink))
        assert said.startswith("CommandFailed") and unknown in said, said
        # What is not in force is not taken out of it, and nobody minds.
        assert inside(m, f"m.down({uuid!r}); b.deactivate({uuid!r}, 5); print('done')") == "done"
        m.run(["ping", "-c", "1", "-W", "2", "10.77.0.1"])


def test_nmcli_does_it_where_the_bus_can_not_be_used(machines: Machines) -> None:
    with machines.container("networkmanager", "static") as m:
        other = "b.bus.connected.__wrapped__.__defaults__ = ('/run/nowhere', 5.0)\n"
        both = "print(sorted((x.uuid, x.links, x.state, x.is_port) for x in {}))"
        assert inside(m, other + both.format("m._active()")) == inside(m, both.format("b.active()"))
        assert inside(m, other + "print(m.is_running())") == "True"
        uuid = m.script(SERVERLESS.replace("method auto", "method link-local")).strip()
        up = "print(m._up({!r}, 'near', 30), any(x.uuid == {!r} for x in m._active()))"
        assert inside(m, other + up.format(uuid, uuid)) == "None True"
        down = "m._down({!r}); print(any(x.uuid == {!r} for x in m._active()))"
        assert inside(m, other + down.format(uuid, uuid)) == "False"


def test_one_that_hangs_is_waited_for_a_while_and_nothing_is_changed(machines: Machines) -> None:
    with machines.container("networkmanager", "static") as m:
        before = scenarios.look(m)
        pid = m.script("systemctl show -P MainPID NetworkManager").strip()
        m.run(["kill", "-STOP", pid])
        try:
            done = m.kvmnet(*CREATE, m.uplink, check=False, timeout=120)
        finally:
            m.run(["kill", "-CONT", pid])
        assert done.status in {1, 3}, done
        assert "NetworkManager" in done.stderr, done
        scenarios.assert_back(m, before)
