"""`kvmnet up` on a real libvirtd: what is missing is made, what is wrong is named and mended."""

import json
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from kvmnet.lab.lab import Lab

pytestmark = pytest.mark.lab

STOCK = """<network><name>{name}</name><forward mode='nat'/><bridge name='{bridge}' stp='on'
delay='0'/><ip address='{gateway}' netmask='255.255.255.0'><dhcp><range start='{first}'
end='{last}'/></dhcp></ip></network>"""

DROP_ALL = """table inet filter {
  chain input { type filter hook input priority 0; policy drop;
    iif lo accept; ct state established,related accept; ip saddr 192.168.77.0/24 accept;
  }
  chain forward { type filter hook forward priority 0; policy drop; }
}"""


def stock(name: str = "default", bridge: str = "virbr0", subnet: str = "192.168.122") -> str:
    return STOCK.format(
        name=name, bridge=bridge, gateway=f"{subnet}.1", first=f"{subnet}.2", last=f"{subnet}.254"
    )


def define(lab: Lab, xml: str) -> None:
    lab.run("host", ["virsh", "net-define", "/dev/stdin"], stdin=xml)


def definition(lab: Lab, name: str = "default") -> str:
    return lab.run("host", ["virsh", "net-dumpxml", "--inactive", name]).stdout


def names(lab: Lab, *which: str) -> list[str]:
    return lab.run("host", ["virsh", "net-list", "--name", *which]).stdout.split()


@pytest.fixture
def clean(lab: Lab) -> Iterator[Lab]:
    """The module's lab, without networks and firewall rules before and after each test."""
    yield lab
    lab.run("host", ["nft", "delete", "table", "inet", "filter"], accept=(0, 1))
    lab.run("host", ["nft", "delete", "table", "bridge", "quiet"], accept=(0, 1))
    for name in names(lab, "--all"):
        lab.run("host", ["virsh", "net-destroy", name], accept=(0, 1))
        lab.run("host", ["virsh", "net-undefine", name], accept=(0, 1))
    lab.run("host", ["ip", "link", "delete", "virbr0"], accept=(0, 1))


def test_one_command_makes_the_network_and_a_second_one_changes_nothing(clean: Lab) -> None:
    first = clean.kvmnet("up")
    assert "guests on network default are online" in first.stdout
    assert names(clean, "--autostart") == ["default"]
    before = definition(clean)
    assert "192.168.122.1" in before
    second = clean.kvmnet("up")
    assert "(nothing had to be changed)" in second.stdout
    assert "nothing to change" in second.stderr
    assert definition(clean) == before


def test_the_json_document_tells_all_of_it(clean: Lab) -> None:
    planned = json.loads(clean.kvmnet("up", "--dry-run", "--json").stdout)
    assert names(clean, "--all") == []
    assert (planned["format"], planned["applied"], planned["probe"]) == ("kvmnet.up", False, None)
    done = json.loads(clean.kvmnet("up", "--json").stdout)
    assert done["applied"] is True
    steps = {step["name"]: step["verdict"] for step in done["probe"]["steps"]}
    assert steps["dhcp"] == steps["host"] == steps["target"] == "ok"
    kinds = [s["step"]["type"] for s in done["plan"]["steps"]]
    assert kinds == ["define-network", "start-network", "set-autostart"]


def test_an_existing_definition_is_started_and_stays_as_it_is(clean: Lab) -> None:
    define(clean, stock())
    before = definition(clean)
    done = clean.kvmnet("up", timeout=60)
    assert "online" in done.stdout
    assert definition(clean) == before
    assert names(clean, "--autostart") == ["default"]


def test_a_subnet_in_use_is_named_and_changed_only_with_consent(clean: Lab) -> None:
    define(clean, stock(subnet="192.168.77"))
    before = definition(clean)
    refused = clean.kvmnet("up", accept=(3,))
    assert "subnet-overlap" in refused.stderr and "eth1" in refused.stderr
    assert "kvmnet up --yes" in refused.stderr
    assert definition(clean) == before and names(clean) == []
    clean.kvmnet("up", "--yes", timeout=60)
    after = definition(clean)
    assert "192.168.122.1" in after and "192.168.77." not in after
    assert "range start='192.168.122.2' end='192.168.122.254'" in after


def test_a_bridge_name_in_use_is_named_and_changed_only_with_consent(clean: Lab) -> None:
    clean.run("host", ["ip", "link", "add", "virbr0", "type", "bridge"])
    define(clean, stock())
    refused = clean.kvmnet("up", accept=(3,))
    assert "stale-bridge" in refused.stderr
    clean.kvmnet("up", "--yes", timeout=60)
    assert "name='virbr1'" in definition(clean)


def test_a_firewall_that_drops_is_opened_narrowly_and_with_consent(clean: Lab) -> None:
    clean.kvmnet("up")
    clean.run("host", ["nft", "-f", "-"], stdin=DROP_ALL)
    refused = clean.kvmnet("up", accept=(3,))
    assert "input-drop-dhcp" in refused.stderr and "firewall-drop" in refused.stderr
    assert "chain inet filter input: policy drop" in refused.stderr
    ruleset = clean.run("host", ["nft", "list", "table", "inet", "filter"]).stdout
    assert "kvmnet" not in ruleset
    done = clean.kvmnet("up", "--yes")
    assert "online" in done.stdout
    ruleset = clean.run("host", ["nft", "list", "table", "inet", "filter"]).stdout
    assert 'iifname "virbr0" udp dport 67 accept comment "kvmnet:default"' in ruleset
    assert "policy drop" in ruleset
    again = clean.kvmnet("up")
    assert "nothing to change" in again.stderr


def test_forwarding_that_was_turned_off_is_turned_on_with_consent(clean: Lab) -> None:
    clean.kvmnet("up")
    clean.run("host", ["sysctl", "-w", "net.ipv4.ip_forward=0"])
    refused = clean.kvmnet("up", accept=(3,))
    assert "ip-forward-off" in refused.stderr
    clean.kvmnet("up", "--yes")
    assert clean.run("host", ["sysctl", "-n", "net.ipv4.ip_forward"]).stdout == "1\n"


def test_a_network_that_only_runs_is_saved_with_consent(clean: Lab) -> None:
    clean.run("host", ["virsh", "net-create", "/dev/stdin"], stdin=stock())
    refused = clean.kvmnet("up", accept=(3,))
    assert "network-transient" in refused.stderr
    assert names(clean, "--persistent") == []
    assert "online" in clean.kvmnet("up", "--yes").stdout
    assert names(clean, "--persistent") == names(clean, "--autostart") == ["default"]
    assert "nothing to change" in clean.kvmnet("up").stderr


def test_a_bridge_that_is_gone_comes_back(clean: Lab) -> None:
    clean.kvmnet("up")
    clean.run("host", ["ip", "link", "delete", "virbr0"])
    assert "bridge-missing" in clean.kvmnet("up", accept=(3,)).stderr
    assert "online" in clean.kvmnet("up", "--yes").stdout


def test_what_the_probe_finds_broken_is_undone(clean: Lab) -> None:
    # Frames that never reach the host's own stack: no rule that kvmnet reads says so.
    rules = "table bridge quiet { chain i { type filter hook input priority 0; policy drop; }; }"
    clean.run("host", ["nft", "-f", "-"], stdin=rules)
    done = clean.kvmnet("up", accept=(4,), timeout=60)
    assert "everything was put back" in done.stderr
    assert "would not be online: dhcp" in done.stderr
    assert names(clean, "--all") == []
    links = clean.run("host", ["ip", "-br", "link"]).stdout
    assert "virbr0" not in links and "kvmnet" not in links


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("wait_s", [0.1, 0.35, 0.75])
def test_a_signal_at_any_moment_leaves_nothing_half_made(
    clean: Lab, number: signal.Signals, wait_s: float
) -> None:
    script = (
        "import os, signal, subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-m', 'kvmnet', 'up'], start_new_session=True)\n"
        "def caught():\n"
        "    with open(f'/proc/{p.pid}/status') as status:\n"
        "        (mask,) = [x.split()[1] for x in status if x.startswith('SigCgt:')]\n"
        "    return int(mask, 16) & 1 << signal.SIGHUP - 1\n"
        "while p.poll() is None and not caught():  # Python still starts: nothing is made yet\n"
        "    time.sleep(0.002)\n"
        "time.sleep(float(sys.argv[1]))\n"
        "p.send_signal(int(sys.argv[2]))\n"
        "sys.exit(p.wait(timeout=60))\n"
    )
    done = clean.run(
        "host", [sys.executable, "-c", script, str(wait_s), str(int(number))],
        accept=(0, 130), timeout=60,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    end = time.monotonic() + 10  # the kernel removes a namespace's NIC a moment later
    while "kvmnet" in (links := clean.run("host", ["ip", "-br", "link"]).stdout):
        assert time.monotonic() < end, links
        time.sleep(0.1)
    if done.status == 130:
        assert names(clean, "--all") == []
        assert "virbr0" not in links


def test_a_network_of_another_mode_is_left_alone(clean: Lab) -> None:
    clean.kvmnet("network", "create", "quiet", "--mode", "isolated")
    refused = clean.kvmnet("up", "quiet", accept=(3,))
    assert "not a NAT network" in refused.stderr and "isolated" in refused.stderr


@pytest.mark.parametrize("name", ["../../etc", "a b", "-x;", "né", "", "x" * 65, "a\nb"])
def test_hostile_names_are_refused(clean: Lab, name: str) -> None:
    done = clean.kvmnet("up", "--", name, accept=(2,))
    assert "Traceback" not in done.stderr
    assert names(clean, "--all") == []
