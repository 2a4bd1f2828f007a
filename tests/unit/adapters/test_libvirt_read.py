"""libvirt's own test driver: a connection without QEMU, DHCP leases or agents."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kvmnet.adapters import libvirt_read
from kvmnet.adapters.virt_read import Kind

pytest.importorskip("libvirt")
ALL = frozenset(Kind)

NODE = """<node>
<domain type='test'><name>good</name><memory>1024</memory><os><type>hvm</type></os><devices>
<interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/></interface>
</devices></domain>
<domain type='test'><name>late &amp; &lt;odd&gt;</name><memory>1024</memory>
<os><type>hvm</type></os></domain>
<network><name>lan</name><uuid>dd8fe884-6c02-601e-7551-cca97df1c5df</uuid>
<bridge name='br9'/><ip address='10.3.0.1' netmask='255.255.255.0'/></network>
</node>"""


def test_test_driver(tmp_path: Path) -> None:
    node = tmp_path / "node.xml"
    node.write_text(NODE)
    found = libvirt_read.read(f"test://{node}", ALL)
    assert [x.hypervisor for x in found.connections] == ["TEST"]
    guests = {x.name: x for x in found.guests}
    assert set(guests) == {"good", "late & <odd>"}
    assert guests["good"].live_nics[0].source == "br0"
    assert guests["good"].state == "running"
    assert [x.name for x in found.networks] == ["lan"]
    assert [x.what for x in found.unread] == ["network lan: leases"]


def test_one_bad_definition_does_not_spoil_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = tmp_path / "node.xml"
    node.write_text(NODE)
    parse = libvirt_read.domain_xml.parse

    def refuse_good(text: str) -> libvirt_read.domain_xml.ParsedGuest:
        return parse("<network/>" if "<name>good</name>" in text else text)

    monkeypatch.setattr(libvirt_read.domain_xml, "parse", refuse_good)
    found = libvirt_read.read(f"test://{node}", frozenset({Kind.GUESTS}))
    assert [x.name for x in found.guests] == ["late & <odd>"]
    assert [x.what for x in found.unread] == ["guest good"]
    assert "network" in found.unread[0].why


@pytest.mark.parametrize("uri", ["qemu:///system?socket=/nowhere", "nonsense://", "test:///none"])
def test_no_connection_is_named(uri: str) -> None:
    began = time.monotonic()
    found = libvirt_read.read(uri, ALL)
    assert time.monotonic() - began < 8
    assert [x.what for x in found.unread] == [f"libvirt {uri}"]
    assert found.unread[0].why
    assert (found.guests, found.connections) == ([], [])
