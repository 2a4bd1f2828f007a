"""The story of KVM networking, told with a real guest, real commands and real packets.

First what Ubuntu's page on it promises of libvirt's NAT network ("usermode networking"): a guest
gets out, it reaches its host, nothing needs to be configured, and the LAN does not reach it. Then
what it says of bridged networking: the same guest, while it runs, becomes a computer on the LAN. In
between something breaks, is named, and mended.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence
from typing import Protocol

from kvmnet.adapters.run import Completed
from kvmnet.errors import Failed
from kvmnet.lab import topology as t
from kvmnet.lab.faults import breaking
from kvmnet.lab.guest import LabGuest
from kvmnet.lab.lab import Lab

LAB = "demo"
GUEST = "web"
FAULT = "docker-forward-drop"
SUBNET = ipaddress.ip_network("192.168.122.0/24")
GATEWAY = "192.168.122.1"


class Stage(Protocol):
    """Where the story is told; text is for people, whatever it contains."""

    def chapter(self, title: str) -> None:
        """A new part begins."""

    def tell(self, text: str) -> None:
        """A sentence or two of the story."""

    def command(self, where: str, words: Sequence[str]) -> None:
        """This is run now at that place."""

    def output(self, text: str) -> None:
        """What a command printed."""

    def progress(self, text: str) -> None:
        """What is going on while somebody waits."""


def tell(stage: Stage) -> None:
    """Tell the whole story in a lab of its own, which is gone at the end, whatever that is.

    Raises `Failed` when a part of it does not come true.
    """
    begin = time.monotonic()
    stage.chapter("A small world of its own")
    stage.tell(
        "A host, a home router, another computer on the LAN and a web server far away: four "
        "network namespaces on this machine. Its own network is not touched."
    )
    with Lab.temporary(LAB, stage.progress) as lab:
        story = _Story(lab, stage)
        story.world()
        story.network()
        story.guest_boots()
        story.internet()
        story.trouble()
        story.ssh()
        story.peer()
        story.bridge()
        story.move()
        story.peer_again()
        story.status()
        stage.chapter("The end")
        stage.progress("taking everything down")
    stage.tell(f"Everything is gone again; this took {time.monotonic() - begin:.0f} seconds.")


class _Story:
    def __init__(self, lab: Lab, stage: Stage) -> None:
        self.lab = lab
        self.stage = stage
        self.guest = LabGuest(lab.record, GUEST)
        self.address = ""

    def world(self) -> None:
        self._at(t.HOST, "ip", "-brief", "-4", "address")
        self.stage.tell(
            "The host has an address on the LAN, from the router. It has no guests yet."
        )

    def network(self) -> None:
        self.stage.chapter("One command makes the network")
        self.stage.tell(
            "libvirt calls it `default`: guests get private addresses, and the host translates "
            "them to its own (NAT). kvmnet makes it, starts it, and proves it with a stand-in "
            "guest that asks for a lease and looks around."
        )
        self._kvmnet("up", "--yes")

    def guest_boots(self) -> None:
        self.stage.chapter("A real guest boots and takes an address")
        begin = time.monotonic()
        self.lab.add_guest(GUEST, on="network:default", say=self.stage.progress)
        self.stage.progress("QEMU boots it …")
        self.guest.wait_ready(120)
        self.address = self.guest.wait_address(60)
        took = time.monotonic() - begin
        self._in_guest("ip", "-4", "address", "show", "dev", "eth0")
        inside = ipaddress.ip_address(self.address) in SUBNET
        self._expect(inside, f"the guest's address {self.address} is not in {SUBNET}")
        self.stage.tell(f"It runs after {took:.1f} s and has {self.address}, which is in {SUBNET}.")

    def internet(self) -> None:
        self.stage.chapter("From inside, the internet is there")
        page = self._in_guest("wget", "-q", "-O-", f"http://{t.WEB_NAME}/")
        self._expect(page.stdout.strip() == t.WEB_PAGE, "the page did not load")
        self.stage.tell(
            "The name was resolved by the host's dnsmasq, the packets went out with the host's "
            "address. Nothing had to be configured in the guest."
        )

    def trouble(self) -> None:
        self.stage.chapter("Something breaks, and is found")
        self.stage.tell(
            f"Somebody installs Docker on the host: {breaking.find(FAULT).seen}. (Its rules are "
            "written as Docker writes them; Docker itself is not needed.)"
        )
        breaking.break_(self.lab, FAULT, self.stage.progress)
        url = f"http://{t.WEB_NAME}/"
        lost = self._in_guest("timeout", "4", "wget", "-q", "-O-", url, accept=range(256))
        self._expect(lost.status != 0, "the guest reached the internet past Docker's rules")
        self.stage.tell(
            "The doctor looks at everything, tries it with a stand-in guest, and names the cause:"
        )
        found = self._kvmnet("doctor", accept=(1,))
        self._expect("docker-forward-drop" in found.stdout, "the doctor did not name the cause")
        self.stage.tell("And here is one real packet, followed to the rule that drops it:")
        self._kvmnet("trace", "network:default", f"{t.WEB_IP}:80", accept=(1,))
        self.stage.tell("The doctor mends it, and looks whether that has helped:")
        self._kvmnet("doctor", "--fix", "--yes")
        page = self._in_guest("wget", "-q", "-O-", url)
        self._expect(page.stdout.strip() == t.WEB_PAGE, "the page did not load after the mending")
        breaking.mend(self.lab, FAULT)

    def ssh(self) -> None:
        self.stage.chapter(f"The host is {GATEWAY} to its guests: ssh and scp work")
        target = f"{t.USER}@{GATEWAY}"
        done = self._in_guest("ssh", target, "hostname; echo $SSH_CONNECTION")
        self._expect(done.stdout.startswith("host\n"), "ssh did not reach the host")
        self._in_guest("sh", "-c", "hostname > letter")
        self._in_guest("scp", "-q", "letter", f"{target}:")
        there = self._at(t.HOST, "cat", f"{t.USER_HOME}/letter")
        self._expect(there.stdout == f"{GUEST}\n", "scp did not bring the file")

    def peer(self) -> None:
        self.stage.chapter("The LAN can not reach the guest, and why")
        url = f"http://{self.address}/"
        here = self._at(t.HOST, "busybox", "wget", "-q", "-O-", url)
        self._expect(f"guest {GUEST}" in here.stdout, "the guest's page did not load in the host")
        self.stage.tell("The guest runs a web server, and its host sees it. The other computer:")
        self._refused(url, "the peer reached the guest, which it must not")
        self.stage.tell(
            "First reason: the peer does not know where that address is, so it asks the router, "
            "and the router knows nothing of it either:"
        )
        self._at(t.PEER, "ip", "route", "get", self.address)
        self.stage.tell("Second reason: even when the peer is told the way,")
        self._at(t.PEER, "ip", "route", "add", str(SUBNET), "via", t.HOST_IP)
        self._refused(url, "the peer reached the guest past the host's firewall")
        self.stage.tell(
            "the host's firewall lets nothing in that the guest did not ask for. Such a guest can "
            "use the world, but not serve it; for that there are bridges."
        )
        self._at(t.PEER, "ip", "route", "delete", str(SUBNET))

    def bridge(self) -> None:
        self.stage.chapter("The host's NIC becomes a port of a bridge")
        self.stage.tell(
            "A bridge is a switch inside the host. Its NIC is plugged into it, and the host's "
            "address moves along, with no packet lost; kvmnet proves that all that worked before "
            "works still, or puts everything back."
        )
        self._kvmnet("bridge", "create", "br0", "--port", t.HOST_NIC, "--no-persist", "--yes")
        self._at(t.HOST, "ip", "-brief", "-4", "address", "show", "dev", "br0")

    def move(self) -> None:
        self.stage.chapter("The running guest moves to the LAN")
        self.stage.tell(
            "No XML is edited, nothing is rebooted. The guest sees its cable pulled for a moment, "
            "asks for an address again, and gets one from the LAN's own router."
        )
        old = self.address
        self._kvmnet("guest", "move", GUEST, "--to", "bridge:br0", "--yes")
        self.address = self.guest.wait_address(20, other_than=old)
        self._in_guest("ip", "-4", "address", "show", "dev", "eth0")
        inside = ipaddress.ip_address(self.address) in ipaddress.ip_network(t.LAN_SUBNET)
        self._expect(inside, f"the guest's address {self.address} is not on the LAN")

    def peer_again(self) -> None:
        self.stage.chapter("Now the other computer opens its web page")
        page = self._at(t.PEER, "busybox", "wget", "-q", "-O-", f"http://{self.address}/")
        self._expect(f"guest {GUEST}" in page.stdout, "the peer did not reach the guest's page")
        self.stage.tell(
            "The guest serves the LAN like any computer on it. `kvmnet undo` would bring it back "
            "behind NAT, with the very definition that it had."
        )

    def status(self) -> None:
        self.stage.chapter("All of it at a glance")
        shown = self._kvmnet("status", accept=(0, 1))
        for text in ("default", GUEST, self.address):
            self._expect(text in shown.stdout, f"`kvmnet status` does not show {text}")

    def _refused(self, url: str, else_failed: str) -> None:
        words = ("timeout", "4", "busybox", "wget", "-q", "-O-", url)
        done = self._at(t.PEER, *words, accept=range(256))
        self._expect(done.status != 0, else_failed)
        self.stage.output(done.stderr.strip() or "(no answer)")

    def _at(self, where: str, *words: str, accept: Sequence[int] = (0,)) -> Completed:
        self.stage.command(where, words)
        return self._shown(self.lab.run(where, words, accept=accept))

    def _kvmnet(self, *words: str, accept: Sequence[int] = (0,)) -> Completed:
        self.stage.command(t.HOST, ("kvmnet", *words))
        return self._shown(self.lab.kvmnet(*words, timeout=120, accept=accept))

    def _in_guest(self, *words: str, accept: Sequence[int] = (0,)) -> Completed:
        self.stage.command(f"guest {GUEST}", words)
        return self._shown(self.guest.run(words, timeout=60, accept=accept))

    def _shown(self, done: Completed) -> Completed:
        if done.stdout.strip():
            self.stage.output(done.stdout.rstrip("\n"))
        return done

    def _expect(self, came_true: bool, otherwise: str) -> None:
        if not came_true:
            raise Failed("the story did not come true", why=otherwise)


GOING_ON: tuple[tuple[str, str], ...] = (
    ("kvmnet lab up", "the same world again, to try things yourself"),
    ("kvmnet --lab up", "the NAT network in it"),
    ("kvmnet lab guest add NAME", "a guest in it"),
    ("kvmnet --lab status", "what there is"),
    ("kvmnet --lab bridge create br0 --port eth1", "a bridge on its LAN"),
    ("kvmnet --lab guest move NAME --to bridge:br0", "the guest on it, while it runs"),
    ("kvmnet lab break --list", "faults to put into it, and to find"),
    ("kvmnet lab down", "the end of it"),
    ("kvmnet up", "the real thing: a working NAT network on this machine"),
)
"""What to try next: command and meaning."""
