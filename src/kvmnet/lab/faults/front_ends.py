"""ufw and firewalld: the programs themselves, unpacked into the lab and run there."""

from __future__ import annotations

from kvmnet.lab.faults.fault import (
    Breakage,
    Command,
    Fault,
    Look,
    Unpacked,
    back,
    command,
    probe,
    tolerant,
)
from kvmnet.lab.faults.libvirt_nft import as_new_libvirt, as_now, as_this_libvirt
from kvmnet.lab.faults.networks import stop_daemon
from kvmnet.lab.faults.stages import NETWORK, program
from kvmnet.lab.faults.unpacked import environment, folder

_UFW_PACKAGES = Unpacked(name="ufw", packages=("ufw",))
_UFW = folder(_UFW_PACKAGES)
_UFW_WORDS = (
    *environment(_UFW_PACKAGES), "/usr/bin/python3", f"{_UFW}/usr/sbin/ufw",
    f"--rootdir={_UFW}", f"--datadir={_UFW}", "--force",
)  # fmt: skip
_UFW_FILES = (
    "ufw.conf", "before.init", "after.init", "before.rules", "before6.rules", "after.rules",
    "after6.rules", "iptables/user.rules", "iptables/user6.rules",
)  # fmt: skip
_UFW_SYSCTLS = (
    "net/ipv4/conf/all/accept_redirects", "net/ipv4/conf/default/accept_redirects",
    "net/ipv6/conf/all/accept_redirects", "net/ipv6/conf/default/accept_redirects",
    "net/ipv4/icmp_echo_ignore_broadcasts", "net/ipv4/icmp_ignore_bogus_error_responses",
    "net/ipv4/icmp_echo_ignore_all", "net/ipv4/conf/all/log_martians",
    "net/ipv4/conf/default/log_martians",
)  # fmt: skip
"""What its sysctl.conf sets."""


def _ufw(look: Look) -> Breakage:
    sources = tuple(f"{_UFW}/usr/share/ufw/{x}" for x in _UFW_FILES)
    return Breakage(
        make=(
            *as_new_libvirt(look),
            command("cp", *sources, f"{_UFW}/etc/ufw/"),  # as its package does when it is set up
            # As guides for libvirt say; without it what guests send on is dropped as well.
            command(*_UFW_WORDS, "default", "allow", "routed"),
            command(*_UFW_WORDS, "enable"),
        ),
        mend=(
            tolerant(*_UFW_WORDS, "disable"),
            *(x for family in ("iptables", "ip6tables") for x in _without_ufw(family)),
            *back(look, *_UFW_SYSCTLS),
            *as_this_libvirt(look),
        ),
    )


def _without_ufw(family: str) -> tuple[Command, ...]:
    """`ufw disable` leaves its empty chains behind."""
    prefix = "ufw" if family == "iptables" else "ufw6"
    parts = ("before-logging", "before", "after", "after-logging", "reject", "track")
    chains = [
        (f"{prefix}-{part}-{hook}", hook.upper())
        for hook in ("input", "forward", "output")
        for part in parts
    ]
    return (
        *(tolerant(family, "-w", "-D", hook, "-j", chain) for chain, hook in chains),
        *(tolerant(family, "-w", verb, chain) for verb in ("-F", "-X") for chain, _ in chains),
    )


_FIREWALLD_PACKAGES = Unpacked(
    name="firewalld",
    packages=(
        "firewalld", "python3-firewall", "python3-nftables", "python3-dbus", "python3-gi",
        "gir1.2-glib-2.0", "libgirepository-1.0-1", "libglib2.0-0",
    ),
)  # fmt: skip
_FIREWALLD = folder(_FIREWALLD_PACKAGES)
_RUN = "/run/kvmnet-fault-firewalld"
_BUS = f"""\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <pidfile>{_RUN}/bus.pid</pidfile>
  <policy context="default">
    <allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/>
  </policy>
</busconfig>
"""
_FIREWALLD_PID = "/run/firewalld.pid"
_FIREWALLD_ENV = environment(_FIREWALLD_PACKAGES)


def _firewalld(look: Look) -> Breakage:
    rules = as_now(look)  # firewalld flushes them when it starts and when it ends
    words = (*_FIREWALLD_ENV, "/usr/bin/python3")
    return Breakage(
        make=(
            command("mkdir", "-p", "/run/dbus", _RUN),
            command("tee", f"{_RUN}/bus.conf", stdin=_BUS),
            command("cp", "-a", f"{_FIREWALLD}/etc/firewalld", f"{_RUN}/etc"),
            command("dbus-daemon", f"--config-file={_RUN}/bus.conf", "--fork"),
            command(
                *words, f"{_FIREWALLD}/usr/sbin/firewalld", "--default-config",
                f"{_FIREWALLD}/usr/lib/firewalld", "--system-config", f"{_RUN}/etc",
                "--log-file", f"{_RUN}/log",
            ),
            Command(
                argv=(*words, f"{_FIREWALLD}/usr/bin/firewall-cmd", "--state"), patience_s=20
            ),
            *rules,  # as libvirt does when it is restarted
        ),
        mend=(
            stop_daemon(_FIREWALLD_PID),
            # It takes its rules with it, after the signal.
            Command(
                argv=("nft", "list", "table", "inet", "firewalld"), accept=(1,), patience_s=10
            ),
            stop_daemon(f"{_RUN}/bus.pid"),
            tolerant("rm", "-rf", _RUN, "/run/dbus/system_bus_socket"),
            *rules,
        ),
    )  # fmt: skip


FAULTS = (
    Fault(
        name="input-drop-dhcp-ufw",
        problem="input-drop-dhcp",
        seen="since `ufw enable` guests on a NAT network get no address",
        how="ufw's own rules drop what is not allowed, and libvirt since 10.4 has no accept in "
        "the same chain",
        trial=probe("network:default", "dhcp"),
        stages=(NETWORK,),
        packages=(_UFW_PACKAGES,),
        touches=("libvirt's rules",),
        prepare=_ufw,
    ),
    Fault(
        name="input-drop-dhcp-firewalld",
        problem="input-drop-dhcp",
        also=("firewall-drop",),
        seen="since firewalld was started guests on a NAT network get no address",
        how="firewalld came after libvirt: the bridge is in no zone of its own, and the default "
        "zone rejects DHCP",
        trial=probe("network:default", "dhcp"),
        stages=(NETWORK,),
        needs=(program("dbus-daemon", "dbus-daemon"),),
        packages=(_FIREWALLD_PACKAGES,),
        touches=("libvirt's rules",),
        prepare=_firewalld,
    ),
)
