"""A running guest that lost its bridge is plugged in again, and is reached again."""

from __future__ import annotations

import pytest

from kvmnet.errors import CommandFailed
from kvmnet.lab.lab import Lab

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def web(lab: Lab) -> str:
    """The address of a guest on network default; the guest serves a web page."""
    lab.kvmnet("up")
    guest = lab.add_guest("web", on="network:default")
    guest.wait_ready(90)
    return guest.wait_address(30)


def page(lab: Lab, address: str) -> str:
    argv = ["timeout", "10", "busybox", "wget", "-q", "-O-", f"http://{address}/"]
    return lab.run("host", argv).stdout


def is_cut_off(lab: Lab, address: str) -> bool:
    try:
        page(lab, address)
    except CommandFailed:
        return True
    return False


def test_starting_the_network_again_plugs_its_guests_in(lab: Lab, web: str) -> None:
    assert "web" in page(lab, web)
    lab.kvmnet("network", "stop", "default", "--force")
    assert is_cut_off(lab, web)
    lab.kvmnet("network", "start", "default")
    assert "web" in page(lab, web)


def test_guests_that_another_tool_cut_off_are_named_and_plugged_in(lab: Lab, web: str) -> None:
    lab.run("host", ["virsh", "net-destroy", "default"])
    lab.run("host", ["virsh", "net-start", "default"])
    assert is_cut_off(lab, web)
    refused = lab.kvmnet("up", accept=(3,))
    assert "orphaned-tap" in refused.stderr and "vnet" in refused.stderr
    lab.kvmnet("up", "--yes")
    assert "web" in page(lab, web)
    assert "nothing to change" in lab.kvmnet("up").stderr


def test_a_bridge_that_comes_back_has_its_guests_again(lab: Lab, web: str) -> None:
    lab.run("host", ["ip", "link", "delete", "virbr0"])
    refused = lab.kvmnet("up", accept=(3,))
    assert "bridge-missing" in refused.stderr and "web" in refused.stderr
    lab.kvmnet("up", "--yes")
    assert "web" in page(lab, web)


def test_a_network_without_a_saved_definition_is_not_stopped_by_accident(lab: Lab) -> None:
    xml = (
        "<network><name>passing</name><forward mode='nat'/><bridge name='virbr5'/>"
        "<ip address='10.55.0.1' prefix='24'/></network>"
    )
    lab.run("host", ["virsh", "net-create", "/dev/stdin"], stdin=xml)
    refused = lab.kvmnet("network", "stop", "passing", accept=(3,))
    assert "gone for good" in refused.stderr
    lab.kvmnet("network", "stop", "passing", "--force")
    assert "passing" not in lab.run("host", ["virsh", "net-list", "--all", "--name"]).stdout
