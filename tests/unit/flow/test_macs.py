"""What is known of MAC addresses, out of States that were read."""

from kvmnet.flow.macs import known_in
from kvmnet.model.state import State, Unread

REFUSED = "Failed to connect socket: Connection refused"


def gap(what: str, why: str = REFUSED) -> State:
    return State(taken_at=0, hostname="h", unread=(Unread(what=what, why=why),))


def test_default_connection_that_has_a_name_is_named_once() -> None:
    known = known_in([gap("libvirt (default connection)"), gap("libvirt qemu:///system")])
    assert [x.what for x in known.unread] == ["libvirt qemu:///system"]


def test_default_connection_that_failed_otherwise_is_named_too() -> None:
    known = known_in([gap("libvirt (default connection)", "no binding"), gap("libvirt xen:///")])
    assert [x.what for x in known.unread] == ["libvirt (default connection)", "libvirt xen:///"]
