"""Kernel settings that a diagnosis mends, and files of sysctl.d that say otherwise at boot."""

from __future__ import annotations

from machines import scenarios
from machines.diagnosis import diagnose, names
from machines.machine import Machine

EARLIER = "/etc/sysctl.d/50-strict.conf"
"""Read before kvmnet's file of a mending."""
LATER = "/etc/sysctl.conf"
"""Read after it: in /etc/sysctl.d Debian has a link 99-sysctl.conf to it."""
BRIDGE_NF = "net.bridge.bridge-nf-call-iptables"
STRICT = "net.ipv4.conf.{}.rp_filter = 1\n"


def _networkd(name: str, address: str) -> dict[str, str]:
    """A link into a subnet that is reached by another one: strict filtering drops what comes in."""
    return {
        f"30-{name}.netdev": f"[NetDev]\nName={name}\nKind=dummy\n",
        f"30-{name}.network": f"[Match]\nName={name}\n[Network]\nIPv6AcceptRA=no\n"
        f"[Address]\nAddress={address}\nRouteMetric=2000\n",
    }


def mend(m: Machine) -> None:
    """Three settings are wrong, and files set two of them so; what can last is made to."""
    for name, address in (("dup0", "10.78.0.30/24"), ("dup1", "10.78.0.31/24")):
        for file, text in _networkd(name, address).items():
            m.write(f"/etc/systemd/network/{file}", text)
    m.write(EARLIER, f"{STRICT.format('dup0')}{BRIDGE_NF} = 0\n")
    m.write(LATER, STRICT.format("dup1"))
    m.run(["networkctl", "reload"])
    scenarios.wait_for("dup1", lambda: m.addresses("dup1") and m.addresses("dup0"))
    m.script("modprobe br_netfilter; sysctl -qw net.ipv4.conf.dup0.rp_filter=1 "
             "net.ipv4.conf.dup1.rp_filter=1")  # fmt: skip
    assert names(diagnose(m)) == [
        ("bridge-nf-ignored", "the host"),
        ("rp-filter", "NIC dup0"),
        ("rp-filter", "NIC dup1"),
    ]
    done = m.kvmnet("doctor", "--fix", "--yes", check=False)
    assert done.status == 0, done
    assert "99-sysctl.conf sets it to 1 and is read last; say 2 there" in done.stderr, done
    assert settings(m) == ["2", "2", "0"]


def settings(m: Machine) -> list[str]:
    return m.script(
        f"sysctl -n net.ipv4.conf.dup0.rp_filter net.ipv4.conf.dup1.rp_filter {BRIDGE_NF}"
    ).split()


def assert_lasts(m: Machine) -> None:
    """After a boot: all but what the later file took back, until people say it there."""
    scenarios.wait_for("dup1", lambda: m.addresses("dup1") and m.addresses("dup0"))
    scenarios.wait_for("settings", lambda: settings(m) == ["2", "1", "0"])
    assert names(diagnose(m)) == [("rp-filter", "NIC dup1")]
    m.run(["sed", "-i", "s/= 1/= 2/", LATER])
    m.run(["systemctl", "restart", "systemd-sysctl"])
    assert settings(m) == ["2", "2", "0"]
