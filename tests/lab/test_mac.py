"""`kvmnet mac` on a real host: whoever uses an address is found and named, wherever it is."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kvmnet.adapters.run import Completed
from kvmnet.lab.lab import Lab
from kvmnet.lab.topology import HOST, HOST_MAC, HOST_NIC, PEER_MAC, ROUTER_IP, USER_HOME, USER_ID

pytestmark = pytest.mark.lab

SCHEMAS = Path(__file__).parents[2] / "docs/schema"
RUNTIME = f"/run/user/{USER_ID}"
AS_USER = ("setpriv", f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups", "env",
           f"HOME={USER_HOME}", f"XDG_RUNTIME_DIR={RUNTIME}")  # fmt: skip

NETWORK = """<network><name>default</name><forward mode='nat'/>
<bridge name='virbr0' stp='off' delay='0'/><mac address='52:54:00:00:01:01'/>
<ip address='192.168.122.1' netmask='255.255.255.0'><dhcp>
<range start='192.168.122.100' end='192.168.122.254'/>
<host mac='52:54:00:00:01:02' ip='192.168.122.9'/></dhcp></ip></network>"""
DOMAIN = """<domain type='qemu'><name>{name}</name><memory>65536</memory><vcpu>1</vcpu>
<os><type arch='x86_64'>hvm</type></os><devices>
<interface type='user'><mac address='{mac}'/></interface></devices></domain>"""
SAVED_MAC = "52:54:00:00:02:02"
SILENT_S = 12.0
"""A look at two connections of one libvirtd that hangs: five seconds each at most."""

USED = {
    "defined guest": ("52:54:00:00:02:01", "guest", "guest off on qemu:///system (shut off)"),
    "saved, not running": (SAVED_MAC, "guest", "guest web on qemu:///system (running)"),
    "bridge": ("52:54:00:00:01:01", "network", "bridge of network default on qemu:///system"),
    "reservation": ("52:54:00:00:01:02", "reservation", "reservation of 192.168.122.9 in network"),
    "host NIC": (HOST_MAC, "link", f"NIC {HOST_NIC} of this host"),
    "neighbour": ("52:54:00:00:03:01", "neighbour", f"neighbour 192.168.77.77 on {HOST_NIC}"),
    "forwarding": ("52:54:00:00:03:02", "forwarding", "seen behind port plug0 of bridge br7"),
    "session": ("52:54:00:00:04:01", "guest", f"guest mine on qemu:///session?socket={RUNTIME}"),
}


def sh(lab: Lab, script: str) -> str:
    return lab.run(HOST, ["sh", "-ec", script]).stdout


def mac(lab: Lab, *words: str, status: int = 0, timeout: float = 60) -> Completed:
    done = lab.kvmnet("mac", *words, accept=range(256), timeout=timeout)
    assert done.status == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def document(done: Completed) -> Any:
    found = json.loads(done.stdout)
    schema = json.loads((SCHEMAS / f"{found['format']}.json").read_text())
    jsonschema.validate(found, schema)
    return found


def check(lab: Lab, address: str, status: int = 1) -> list[tuple[str, str]]:
    found = document(mac(lab, "--check", address, "--json", status=status))
    assert found["free"] is (status == 0)
    return [(use["kind"], use["where"]) for use in found["uses"]]


def define(lab: Lab, name: str, address: str) -> None:
    xml = DOMAIN.format(name=name, mac=address)
    lab.run(HOST, ["virsh", "-q", "define", "/dev/stdin"], stdin=xml)


@pytest.fixture(scope="module")
def running_mac(lab: Lab) -> str:
    """The host with somebody in every place; the running guest's own address, with a lease."""
    lab.run(HOST, ["virsh", "-q", "net-define", "/dev/stdin"], stdin=NETWORK)
    lab.run(HOST, ["virsh", "-q", "net-start", "default"])
    guest = lab.add_guest("web")
    define(lab, "off", USED["defined guest"][0])
    sh(lab, f"ip neigh add 192.168.77.77 lladdr {USED['neighbour'][0]} dev {HOST_NIC};"
       "ip link add br7 type bridge; ip link set br7 up;"
       "ip link add plug0 type veth peer name plug1; ip link set plug0 master br7 up;"
       f"bridge fdb add {USED['forwarding'][0]} dev plug0 master static")  # fmt: skip
    start_session(lab)
    guest.wait_address(90)
    live = sh(lab, "virsh dumpxml web")
    found = re.search(r"mac address='([^']*)'", live)
    assert found is not None
    saved = sh(lab, "virsh dumpxml --inactive web").replace(found[1], SAVED_MAC)
    lab.run(HOST, ["virsh", "-q", "define", "/dev/stdin"], stdin=saved)
    return found[1]


def start_session(lab: Lab) -> None:
    """The ordinary user's own libvirtd, with a guest."""
    sh(lab, f"mkdir -p {RUNTIME}; chmod 700 {RUNTIME}; chown {USER_ID}:{USER_ID} {RUNTIME}")
    lab.run(HOST, [*AS_USER, "libvirtd", "-d"])
    define = "cat > ~/mine.xml && virsh -q -c qemu:///session define ~/mine.xml"
    xml = DOMAIN.format(name="mine", mac=USED["session"][0])
    lab.run(HOST, [*AS_USER, "sh", "-ec", define], stdin=xml)


@pytest.fixture
def without_libvirtd(lab: Lab, running_mac: str) -> Iterator[None]:
    lab.stop_libvirtd()
    try:
        yield
    finally:
        lab.start_libvirtd()


@pytest.mark.parametrize("source", USED)
def test_who_uses_an_address_is_named(lab: Lab, running_mac: str, source: str) -> None:
    address, kind, where = USED[source]
    found = check(lab, address)
    assert [x for x in found if x[0] == kind and x[1].startswith(where)], found
    said = mac(lab, "--check", address.upper().replace(":", "-"), status=1).stdout
    assert f"{address} is in use" in said and where in said


def test_a_running_guest_is_found_by_its_lease_and_on_the_bridge_too(
    lab: Lab, running_mac: str
) -> None:
    kinds = {kind for kind, _ in check(lab, running_mac)}
    assert {"guest", "lease", "forwarding"} <= kinds
    wheres = [where for kind, where in check(lab, running_mac) if kind == "guest"]
    assert wheres == ["guest web on qemu:///system (running)"], "said once"


def test_a_neighbour_that_failed_is_no_use(lab: Lab, running_mac: str) -> None:
    address = "52:54:00:00:03:0f"
    sh(lab, f"ip neigh add 192.168.77.78 lladdr {address} dev {HOST_NIC}")
    assert check(lab, address)
    sh(lab, f"ip neigh change 192.168.77.78 dev {HOST_NIC} nud failed")
    assert "FAILED" in sh(lab, "ip neigh show 192.168.77.78")
    assert check(lab, address, status=0) == []


def test_addresses_in_use_are_avoided(lab: Lab, running_mac: str) -> None:
    """Under a prefix of 256 all but those in use are given out."""
    made = mac(lab, "--prefix", "52:54:00:00:01", "-n", "254").stdout.split()
    assert len(set(made)) == 254
    assert not {"52:54:00:00:01:01", "52:54:00:00:01:02"} & set(made)
    full = mac(lab, "--prefix", "52:54:00:00:01", "-n", "255", status=3)
    assert "no room" in full.stderr and full.stdout == ""


def test_a_prefix_that_is_used_up_is_refused(lab: Lab, running_mac: str) -> None:
    address = USED["neighbour"][0]
    refused = mac(lab, "--prefix", address[:-3], "-n", "255", status=3)
    assert "256" in refused.stderr and "--prefix 52:54:00" in refused.stderr
    found = document(mac(lab, "--prefix", address[:-3], "-n", "250", "--json"))
    assert address not in found["macs"] and found["known_in_use"] == 2


def test_a_hundred_thousand_are_distinct_and_quick(lab: Lab, running_mac: str) -> None:
    began = time.monotonic()
    made = mac(lab, "-n", "100000").stdout.split()
    took = time.monotonic() - began
    assert len(set(made)) == 100_000
    assert all(re.fullmatch(r"52:54:00(:[0-9a-f]{2}){3}", x) for x in made)
    assert took < 5, "measured: half a second"


@pytest.mark.parametrize(
    "words",
    [["--prefix", "01:00:5e"], ["--prefix", "ff"], ["--prefix", "52:54:0g"], ["--prefix", ""],
     ["--prefix", "52:54:00:00:00:00"], ["--prefix", "52:54:00::"], ["-n", "0"], ["-n", "-1"],
     ["-n", "1000001"], ["-n", "x"], ["--check", "52:54:00"], ["--check", "x\x1b[31m"],
     ["--wait", "nan"], ["--probe", "a/b"], ["--among", "-1"]],
)  # fmt: skip
def test_wrong_input_is_wrong_usage(lab: Lab, running_mac: str, words: list[str]) -> None:
    done = mac(lab, *words, status=2)
    assert done.stdout == "" and "\x1b" not in done.stderr


def test_the_lan_is_asked(lab: Lab, running_mac: str) -> None:
    sh(lab, f"ip neigh flush dev {HOST_NIC}")
    done = mac(lab, "--check", PEER_MAC, "--probe", HOST_NIC, "--json", status=1)
    lan = [use for use in document(done)["uses"] if use["kind"] == "lan"]
    assert len(lan) == 1 and HOST_NIC in lan[0]["where"]
    made = mac(lab, "--probe", HOST_NIC, "--wait", "0.3", "-n", "3").stdout.split()
    assert len(made) == 3
    mac(lab, "--check", made[0], "--probe", HOST_NIC, "--wait", "0.3")


def test_an_ordinary_user_sees_the_systems_guests(lab: Lab, running_mac: str) -> None:
    words = [*AS_USER, sys.executable, "-m", "kvmnet", "mac", "--json", "--check"]
    for address, where in (
        (running_mac, "guest web on qemu:///system (running)"),
        (USED["defined guest"][0], "guest off on qemu:///system (shut off)"),
        (USED["session"][0], "guest mine on qemu:///session (shut off)"),
    ):
        found = document(lab.run(HOST, [*words, address], accept=(1,)))
        assert where in [use["where"] for use in found["uses"]]


def test_without_libvirtd_its_files_tell(lab: Lab, without_libvirtd: None) -> None:
    for address in (USED["defined guest"][0], SAVED_MAC):
        ((kind, where),) = check(lab, address)
        assert kind == "guest" and "says /etc/libvirt/qemu/" in where
    wheres = [where for kind, where in check(lab, USED["bridge"][0]) if kind == "network"]
    assert any("says /etc/libvirt/qemu/networks/default.xml" in where for where in wheres)
    done = mac(lab)
    assert re.fullmatch(r"52:54:00(:[0-9a-f]{2}){3}\n", done.stdout)
    assert "not looked at: libvirt" in done.stderr


def test_without_libvirtd_running_guests_are_known_by_its_files(
    lab: Lab, running_mac: str, without_libvirtd: None
) -> None:
    wheres = [where for kind, where in check(lab, running_mac) if kind == "guest"]
    assert wheres == ["guest web on qemu:///system (says /run/libvirt/qemu/web.xml)"]


def test_what_an_ordinary_user_may_not_read_is_said(lab: Lab, without_libvirtd: None) -> None:
    done = lab.run(HOST, [*AS_USER, sys.executable, "-m", "kvmnet", "mac"])
    assert "not looked at: definitions in /etc/libvirt/qemu (permission denied)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_users_session_that_has_ended_counts_too(lab: Lab, running_mac: str) -> None:
    """A session's libvirtd ends when it is idle; root finds what is defined there."""
    pid = int(sh(lab, f"cat {RUNTIME}/libvirt/libvirtd.pid"))
    sh(lab, f"kill {pid}; while [ -d /proc/{pid} ]; do sleep 0.05; done")
    try:
        ((_, where),) = check(lab, USED["session"][0])
        assert where.startswith("guest mine on qemu:///session of alice (says ")
    finally:
        lab.run(HOST, [*AS_USER, "libvirtd", "-d"])


def test_a_libvirtd_that_hangs_takes_bounded_time(lab: Lab, running_mac: str) -> None:
    lab.signal_libvirtd(signal.SIGSTOP)
    try:
        began = time.monotonic()
        done = mac(lab, "--check", USED["defined guest"][0], status=1)
        took = time.monotonic() - began
    finally:
        lab.signal_libvirtd(signal.SIGCONT)
    assert took < SILENT_S
    assert "did not answer" in done.stderr and "says /etc/libvirt/qemu/off.xml" in done.stdout
    said = mac(lab).stderr  # it may say that it waits for libvirt, which has just woken up
    assert "not looked at" not in said and "did not answer" not in said
    lab.run(HOST, ["busybox", "ping", "-c1", "-W2", ROUTER_IP])
