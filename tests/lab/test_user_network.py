"""NICs on a network of the user, on their own connection: passt, where libvirt takes it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from lab.session import Session

from kvmnet.adapters.libvirt import knows_passt
from kvmnet.lab import accelerator, guest, image, topology
from kvmnet.lab.lab import Lab

pytestmark = pytest.mark.lab

HAS_PASST = knows_passt() is True and shutil.which("passt") is not None
BACKEND = "passt" if HAS_PASST else "slirp"
ADDRESS = topology.HOST_IP if HAS_PASST else "10.0.2.15"
"""passt gives the guest the address of the host, QEMU's own network one of its own."""
DIRECTORY = f"{topology.USER_HOME}/images"


@pytest.fixture(scope="module")
def alice(lab: Lab) -> Session:
    return Session(lab)


@pytest.fixture
def definition(lab: Lab) -> str:
    """A guest of the lab on a bridge; its files lie where the user's QEMU may read them."""
    built = image.ensure(lambda _text: None)
    lab.run("host", ["mkdir", "-p", DIRECTORY])
    for source, name in ((built.kernel, "kernel"), (built.initrd, "initrd")):
        shutil.copyfile(source, lab.path(f"{DIRECTORY}/{built.key}.{name}"))
    kvm = accelerator.kvm_works(built.kernel)
    xml = guest.domain_xml("web", "bridge", "br0", 1, key=built.key, accelerated=kvm)
    xml = xml.replace(guest.IMAGES, DIRECTORY)
    return xml.replace("/var/log/libvirt/", f"{topology.USER_HOME}/")


@pytest.fixture
def web(alice: Session, definition: str) -> Iterator[str]:
    """The guest, shut off."""
    alice.virsh("define", "/dev/stdin", stdin=definition)
    yield "web"
    alice.run("sh", "-c", "virsh -c qemu:///session destroy web; "
              "virsh -c qemu:///session undefine web; true")  # fmt: skip


def test_a_guest_moves_to_its_users_network_and_reaches_the_internet(
    alice: Session, web: str
) -> None:
    done = alice.kvmnet("guest", "move", web, "--to", "user")
    assert "web is on user" in done.stdout
    assert ("takes no passt" in done.stderr or "not installed" in done.stderr) != HAS_PASST
    saved = alice.virsh("dumpxml", "--inactive", web)
    assert "<interface type='user'>" in saved
    assert ("<backend type='passt'/>" in saved) == HAS_PASST
    alice.virsh("start", web)
    assert alice.wait_address(web, "eth0") == ADDRESS
    url = f"http://{topology.WEB_IP}/"
    page = alice.in_guest(web, "/bin/wget", "-q", "-O-", url)
    assert page.strip() == topology.WEB_PAGE
    assert ADDRESS in alice.kvmnet("guest", "list").stdout


@pytest.mark.parametrize(
    "words",
    [
        ["guest", "show", "srv"], ["guest", "move", "srv", "--to", "user"],
        ["guest", "attach", "srv", "--to", "user"], ["doctor", "srv", "--no-probes"],
    ],
)  # fmt: skip
def test_a_guest_that_the_user_does_not_have_may_be_the_systems(
    alice: Session, words: list[str]
) -> None:
    said = alice.kvmnet(*words, status=1).stderr
    assert "there is no guest" in said and "--connect qemu:///system, or sudo" in said


def test_a_running_guest_gets_one_more_and_loses_it(alice: Session, web: str) -> None:
    alice.kvmnet("guest", "move", web, "--to", "user")
    alice.virsh("start", web)
    alice.wait_address(web, "eth0")
    alice.kvmnet("guest", "attach", web, "--to", f"user:{BACKEND}")
    assert alice.wait_address(web, "eth1", 30)
    alice.kvmnet("undo", "--yes")
    assert "eth1" not in alice.in_guest(web, "/bin/ls", "/sys/class/net").split()
    assert alice.virsh("dumpxml", "--inactive", web).count("<interface") == 1


def test_undo_brings_the_bridge_back(alice: Session, web: str) -> None:
    before = alice.virsh("dumpxml", "--inactive", "--security-info", web)
    alice.kvmnet("guest", "move", web, "--to", "user")
    alice.kvmnet("undo", "--yes")
    assert alice.virsh("dumpxml", "--inactive", "--security-info", web) == before


# Debian 12's libvirt knows no passt: there it is refused. A newer one that has it is what all the
# other tests of this module then use, and nothing can be refused.
@pytest.mark.skipif(HAS_PASST, reason="passt can be had here")
def test_passt_that_can_not_be_had_is_refused(alice: Session, web: str) -> None:
    before = alice.virsh("dumpxml", "--inactive", web)
    for words in (("move", web, "--to", "user:passt"), ("attach", web, "--to", "user:passt")):
        done = alice.kvmnet("guest", *words, status=3)
        assert "user:slirp" in done.stderr
    assert alice.virsh("dumpxml", "--inactive", web) == before
