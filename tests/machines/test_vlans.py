"""A bridge with VLAN filtering: a guest in VLAN 20, and a LAN that has that VLAN tagged."""

from __future__ import annotations

import json
from typing import Any

from machines import scenarios
from machines.conftest import Machines
from machines.diagnosis import names
from machines.machine import Machine

NETWORKD = {
    "05-plugged.network": "[Match]\nName=wire far br20 tap7 kp-* kv*\n[Link]\nUnmanaged=yes\n",
    "06-far20.network": "[Match]\nName=far.20\n[Network]\nAddress=10.20.0.1/24\nDHCPServer=yes\n"
    "[DHCPServer]\nEmitDNS=no\n",
}
LAN = """
networkctl reload
ip link add wire type veth peer name far
ip link add br20 type bridge vlan_filtering 1
ip link set wire master br20 up
ip link set br20 up
ip address add 10.1.0.1/24 dev br20
ip link add far.20 link far type vlan id 20
ip link set far up
ip link set far.20 up
bridge vlan add dev wire vid 20
"""
"""Behind the uplink `wire` only VLAN 20 has a DHCP server and a gateway; the host is in VLAN 1."""

GUEST = """
import fcntl, os, struct
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", b"tap7", 0x1002))
mac, ip = bytes.fromhex("525400000707"), bytes([10, 20, 0, 7])
while True:
    frame = os.read(tap, 2048)
    if frame[12:22] == bytes.fromhex("08060001080006040001") and frame[38:42] == ip:
        asker = frame[22:32]
        head = asker[:6] + mac + bytes.fromhex("08060001080006040002")
        os.write(tap, head + mac + ip + asker + bytes(18))
"""
"""All that a guest does here: it holds its tap, and answers ARP for 10.20.0.7."""

DRIVER = """
import sys
import msgspec
from kvmnet.cli.main import main
from kvmnet.flow import doctor, observe, probe_guest
from kvmnet.model.virt import Guest, GuestNic

nic = GuestNic(type="bridge", mac="52:54:00:00:07:07", source="br20", target="tap7")
guest = Guest(connection="qemu:///system", name="web", state="running", id=1, live_nics=(nic,),
              uuid="0f0f0f0f-0000-4000-8000-000000000001")


def look(*words, **more):
    return msgspec.structs.replace(observe.observe(*words, **more), guests=(guest,))


probe_guest.observe = doctor.observe = look
sys.exit(main(sys.argv[1:]))
"""
"""No libvirt runs in these machines: it would tell of this guest. All else is the machine's own."""


def with_guest(m: Machine, *words: str) -> Any:
    """The document of a kvmnet command whose libvirt knows the guest."""
    done = m.run(["python3", "/run/driver.py", *words, "--json"], check=False)
    return json.loads(done.stdout)


def steps(document: Any) -> dict[str, str]:
    return {x["name"]: x["verdict"] for x in document["report"]["steps"]}


def begin(m: Machine) -> None:
    """The LAN, the bridge, and the guest, whose port is in no VLAN."""
    for name, text in NETWORKD.items():
        m.write(f"/etc/systemd/network/{name}", text)
    m.write("/run/driver.py", DRIVER)
    m.write("/run/guest.py", GUEST)
    m.script(LAN)
    m.run(["systemd-run", "--quiet", "--unit=guest", "python3", "/run/guest.py"])
    scenarios.wait_for("the guest's tap", lambda: "tap7" in m.links())
    m.script("ip link set tap7 master br20 up; bridge vlan del dev tap7 vid 1")
    scenarios.wait_for("the LAN's gateway", lambda: m.addresses("far.20") == {"10.20.0.1/24"})


def found(document: Any) -> list[tuple[str, str]]:
    """The findings; that this guest is saved nowhere is by design."""
    return [x for x in names(document) if x[0] != "nic-not-saved"]


PROBE = ("probe", "guest:web", "--to", "10.20.0.1")
DOCTOR = ("doctor", "web", "--to", "10.20.0.1")
ONLINE = ("port", "link", "dhcp", "address", "gateway", "target")


def is_online(probed: Any) -> bool:
    """Whether the stand-in has a lease and reaches all, slowly perhaps."""
    seen = steps(probed)
    slow = {seen[x] for x in ("link", "dhcp")}
    return slow <= {"ok", "warn"} and probed["report"]["lease"] is not None and {
        seen[x] for x in ONLINE if x not in ("link", "dhcp")} == {"ok"}  # fmt: skip


def test_a_probe_is_in_the_vlan_of_the_guests_port_and_a_missing_one_is_named(
    machines: Machines,
) -> None:
    with machines.vm("networkd", "static") as m:
        begin(m)
        document = with_guest(m, "doctor", "web", "--no-probes")
        assert found(document) == [("vlan-missing", "guest web")]
        assert "tap7" in document["findings"][0]["what"]
        probed = with_guest(m, *PROBE)
        assert steps(probed)["port"] == "failed" and steps(probed)["link"] == "skipped"

        m.script("bridge vlan add dev tap7 vid 20 pvid untagged; ping -c 1 -W 5 10.20.0.7 || true")
        probed = with_guest(m, *PROBE)
        seen = steps(probed)
        assert is_online(probed), probed
        assert probed["report"]["lease"]["server"] == "10.20.0.1"
        # The host's own 10.1.0.1 is in VLAN 1: neither it nor the guest hears the other.
        assert seen["host"] == "skipped" and seen["answers"] == "ok", probed
        document = with_guest(m, "doctor")
        assert found(document) == [], document["findings"]
        assert "VLAN 20" in document["probes"][0]["skipped"]
        # A new port is where the bridge puts it, and there nobody answers.
        probed = json.loads(m.kvmnet("probe", "bridge:br20", "--json", check=False).stdout)
        assert steps(probed)["dhcp"] == "failed"

        give_the_host_an_address_in_vlan_20(m)
        seen = steps(with_guest(m, *PROBE))
        assert seen["host"] == "ok" and seen["answers"] == "ok", seen

        m.script("bridge vlan del dev wire vid 20")
        document = with_guest(m, *DOCTOR)
        assert ("vlan-missing", "guest web") in found(document)
        finding = next(x for x in document["findings"] if x["name"] == "vlan-missing")
        assert finding["fix"] == ["bridge vlan add dev wire vid 20"]
        assert steps(document["probes"][0])["dhcp"] != "ok"
        m.script("; ".join(finding["fix"]))
        assert found(with_guest(m, "doctor", "web", "--no-probes")) == []

        a_new_port_is_in_no_vlan_or_another(m)


def give_the_host_an_address_in_vlan_20(m: Machine) -> None:
    m.script(
        "ip link add br20.20 link br20 type vlan id 20; bridge vlan add dev br20 vid 20 self; "
        "ip address add 10.20.0.2/24 dev br20.20 noprefixroute; ip link set br20.20 up"
    )


def a_new_port_is_in_no_vlan_or_another(m: Machine) -> None:
    """What vlan_default_pvid gives the stand-in's port is taken off again."""
    for given in (0, 77):
        m.run(["ip", "link", "set", "br20", "type", "bridge", "vlan_default_pvid", str(given)])
        m.script("bridge vlan del dev tap7 vid 77; bridge vlan add dev tap7 vid 20 pvid untagged")
        probed = with_guest(m, *PROBE)
        assert is_online(probed), probed
        (link,) = [x for x in probed["report"]["steps"] if x["name"] == "link"]
        assert "VLAN 20" in str(link["evidence"]) and "77" not in str(link["evidence"])
    m.run(["ip", "link", "set", "br20", "type", "bridge", "vlan_default_pvid", "0"])
    refused = m.kvmnet("probe", "bridge:br20", check=False)
    assert refused.status == 3 and "vlan_default_pvid 0" in refused.stderr, refused
    m.script("bridge vlan del dev tap7 vid 20; bridge vlan add dev tap7 vid 30")
    probed = with_guest(m, *PROBE)
    (link,) = [x for x in probed["report"]["steps"] if x["name"] == "link"]
    assert link["verdict"] == "skipped" and "with a tag only" in link["reason"]
