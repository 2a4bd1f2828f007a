"""The daemons of the lab: the router's DHCP and DNS, the web server, the host's libvirtd and sshd.

Called by the lab's init.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from kvmnet.adapters.run import Running, run, wait
from kvmnet.errors import Failed, TimedOut
from kvmnet.lab import topology as t
from kvmnet.lab.places import FILES, Places, daemon

_DNSMASQ_CONF = f"""\
no-resolv
no-hosts
no-ping
bind-dynamic
interface={t.LAN_BRIDGE}
except-interface=lo
dhcp-authoritative
domain={t.LAN_DOMAIN}
local=/{t.LAN_DOMAIN}/
dhcp-range={t.LAN_DHCP_RANGE[0]},{t.LAN_DHCP_RANGE[1]},1h
dhcp-host={t.HOST_MAC},{t.HOST_IP},{t.HOST}
dhcp-host={t.PEER_MAC},{t.PEER_IP},{t.PEER}
dhcp-range={t.LAN_SUBNET6.removesuffix("/64")},ra-only,1h
enable-ra
address=/#/
host-record={t.WEB_NAME},{t.WEB_IP},{t.WEB_IP6}
host-record={t.ROUTER}.{t.LAN_DOMAIN},{t.ROUTER_IP},{t.ROUTER_IP6}
dhcp-leasefile=/run/lab/leases
pid-file=
user=root
"""


def start_router(places: Places) -> None:
    """DHCP, DNS and router advertisements for the LAN; returns when it listens."""
    config = Path("/run/lab/dnsmasq.conf")
    config.write_text(_DNSMASQ_CONF)
    # Started from the init's mount namespace: the place's own /run has no such file.
    run(places.joined(t.ROUTER, "dnsmasq", f"--conf-file={config}"))


def start_internet(places: Places) -> None:
    """A web server with one page."""
    www = Path("/run/lab/www")
    www.mkdir()
    (www / "index.html").write_text(t.WEB_PAGE + "\n")
    daemon(places.joined(t.INTERNET, "busybox", "httpd", "-f", "-p", "80", "-h", str(www)))


def start_lan_clients(places: Places) -> None:
    """Plug host and peer in: their addresses come by DHCP and router advertisement."""
    script = Path("/etc/udhcpc.sh")
    script.write_bytes((FILES / script.name).read_bytes())
    script.chmod(0o755)  # a wheel does not keep the bit that makes it a program
    for where, nic in ((t.HOST, t.HOST_NIC), (t.PEER, t.PEER_NIC)):
        places.ip(where, f"link set {nic} up")
        places.spawn(
            where, "busybox", "udhcpc", "-f", "-i", nic, "-s", str(script),
            "-x", f"hostname:{where}", "-T", "1", "-t", "20", "-A", "1",
        )  # fmt: skip


def start_libvirtd(places: Places) -> Running:
    """Start libvirtd in the host; with `-d` its first process ends when it takes connections."""
    return places.spawn(t.HOST, "libvirtd", "-d")


def wait_for_libvirtd(places: Places, process: Running, timeout_s: float) -> None:
    """Returns when the libvirtd that `start_libvirtd` started answers.

    Its first process ends when the socket is there, but its drivers may still fail after that.
    Raises `Failed` with the last error of its log.
    """
    wait(process, timeout_s)
    deadline = time.monotonic() + timeout_s
    while True:
        done = places.run(t.HOST, "virsh", "-c", "qemu:///system", "uri", accept=(0, 1))
        if done.status == 0:
            return
        if time.monotonic() > deadline or "No such file" in done.stderr:
            raise Failed("the lab's libvirtd does not run", why=_last_error(places))
        time.sleep(0.1)


def _last_error(places: Places) -> str:
    log = places.run(t.HOST, "cat", "/var/log/libvirt/libvirtd.log", accept=(0, 1)).stdout
    errors = [line for line in log.splitlines() if " error : " in line]
    return errors[-1].partition(" error : ")[2] if errors else "it left no error in its log"


def start_ssh(places: Places) -> None:
    """An SSH server in the host; guests' keys are added when guests are."""
    home = Path(t.USER_HOME)
    ssh = home / ".ssh"
    ssh.mkdir(parents=True)
    (ssh / "authorized_keys").touch(mode=0o600)
    for path in (home, ssh, ssh / "authorized_keys"):
        os.chown(path, t.USER_ID, t.USER_ID)
    ssh.chmod(0o700)
    key = "/run/lab/ssh_host_key"
    places.run(t.HOST, "dropbearkey", "-t", "ed25519", "-f", key)
    places.spawn(t.HOST, "dropbear", "-F", "-E", "-s", "-P", "", "-r", key, "-p", "22")


def wait_for_addresses(places: Places, timeout_s: float) -> None:
    """Until host and peer have their addresses of both families on the LAN."""
    deadline = time.monotonic() + timeout_s
    for where, nic in ((t.HOST, t.HOST_NIC), (t.PEER, t.PEER_NIC)):
        while _families(places, where, nic) != {"inet", "inet6"}:
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"{nic} of the lab's {where} got no address",
                    why=f"it was given {timeout_s:g} seconds",
                )
            time.sleep(0.05)


def _families(places: Places, where: str, nic: str) -> set[str]:
    raw = places.run(where, "ip", "-j", "address", "show", "dev", nic, "scope", "global").stdout
    try:
        links = json.loads(raw)
    except ValueError:
        raise Failed(f"`ip` in the lab's {where} gave no JSON") from None
    # `ip` prints an empty object for each address that its filter leaves out.
    entries = (entry for link in links for entry in link.get("addr_info", ()))
    return {entry["family"] for entry in entries if "family" in entry}
