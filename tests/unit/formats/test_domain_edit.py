"""Domain XML converted: what it becomes, that all else stays, and that libvirt takes it.

A new case is a new folder `domains/NAME` with `domain.xml` and `expected.txt`: of every NIC and
every target what is said and how the NIC's element is written then (see `told`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import libvirt
import pytest
from lxml import etree

from kvmnet.adapters.libvirt import knows_passt
from kvmnet.errors import KvmnetError, Refused
from kvmnet.formats import domain_edit
from kvmnet.formats.domain_edit import Converted, DomainText, NicEdit
from kvmnet.model.target import parse_target, place
from kvmnet.model.values import Mac

DOMAINS = sorted(x.parent for x in Path(__file__).parent.glob("domains/*/domain.xml"))
TARGETS = ("network:lan", "bridge:br0", "direct:eth1", "direct:eth1:passthrough", "user:passt",
           "user:slirp")  # fmt: skip
SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
NOT_IN_SCHEMA = {"not-in-schema"}
NEW_MAC = Mac("52:54:00:99:99:99")


def data_of(folder: Path) -> bytes:
    return (folder / "domain.xml").read_bytes()


def converted(domain: DomainText, number: int, target: str, mac: Mac | None = None) -> Converted:
    edit = NicEdit(number=number, target=parse_target(target), mac=mac)
    return domain_edit.convert(domain, [edit])


def told(domain: DomainText) -> Iterator[str]:
    """Every NIC on every target: its element, what is said of it, or the refusal."""
    for number, nic in enumerate(domain.nics, 1):
        yield f"==== NIC {number}, {nic.mac or 'no address'}, {place(nic)}"
        for target in TARGETS:
            yield f"---- {target}"
            try:
                done = converted(domain, number, target)
            except Refused as error:
                yield f"refused: {error}"
                continue
            [change] = done.nics
            if not change.changed:
                yield "already there"
                continue
            yield from (f"loses {x.what}: {x.why}" for x in change.removed)
            yield from (f"note: {x}" for x in change.remarks)
            yield done.spans[0].new.replace("\r\n", "\n")
        yield ""


@pytest.mark.parametrize("folder", DOMAINS, ids=lambda x: x.name)
def test_what_a_nic_becomes(folder: Path) -> None:
    domain = domain_edit.read(data_of(folder))
    assert "\n".join(told(domain)) == (folder / "expected.txt").read_text("utf-8")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("folder", DOMAINS, ids=lambda x: x.name)
def test_all_bytes_outside_the_nic_stay(folder: Path, target: str) -> None:
    data = data_of(folder)
    domain = domain_edit.read(data)
    for number, (start, end) in enumerate(domain.located.nics, 1):
        try:
            after = converted(domain, number, target).data
        except Refused:
            continue
        assert after[:start] == data[:start]
        assert after[len(after) - (len(data) - end) :] == data[end:]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("folder", DOMAINS, ids=lambda x: x.name)
def test_all_other_elements_stay_for_another_parser_too(folder: Path, target: str) -> None:
    """lxml finds the same NICs, and in the outcome the same document but for the one chosen."""
    data = data_of(folder)
    domain = domain_edit.read(data)
    for number in range(1, len(domain.nics) + 1):
        try:
            done = converted(domain, number, target, NEW_MAC)
        except Refused:
            continue
        [change], after = done.nics, done.data
        old, new = etree.fromstring(data), etree.fromstring(after)
        for root in (old, new):
            found = root.findall("devices/interface")
            assert len(found) == len(domain.nics)
            if root is new and change.before != change.after:
                assert found[number - 1].get("type") == target.partition(":")[0]
            if root is new:
                mac = found[number - 1].find("mac")
                assert mac is not None and mac.get("address") == NEW_MAC
            tail = found[number - 1].tail
            found[number - 1].clear()
            found[number - 1].tail = tail
        assert etree.tostring(old, method="c14n") == etree.tostring(new, method="c14n")


@cache
def schema() -> etree.RelaxNG:
    assert SCHEMA.exists(), "libvirt's schema is missing: it is in the package of the library"
    return etree.RelaxNG(etree.parse(str(SCHEMA)))


@pytest.mark.parametrize("folder", DOMAINS, ids=lambda x: x.name)
def test_what_libvirts_schema_accepted_it_accepts_afterwards(folder: Path) -> None:
    data = data_of(folder)
    before = schema().validate(etree.fromstring(data))
    assert before == (folder.name not in NOT_IN_SCHEMA), schema().error_log
    if not before:
        return
    domain = domain_edit.read(data)
    for number in range(1, len(domain.nics) + 1):
        for target in TARGETS:
            for mac in (None, NEW_MAC):
                try:
                    after = converted(domain, number, target, mac).data
                except Refused:
                    continue
                told = f"NIC {number} to {target}"
                assert schema().validate(etree.fromstring(after)), (told, schema().error_log)


@pytest.mark.parametrize("folder", DOMAINS, ids=lambda x: x.name)
def test_back_and_forth_ends_where_it_began(folder: Path) -> None:
    """There and back again, and there: the second time is as the first."""
    domain = domain_edit.read(data_of(folder))
    for number in range(1, len(domain.nics) + 1):
        try:
            once = converted(domain, number, "bridge:br0").data
        except Refused:
            continue
        away = converted(domain_edit.read(once), number, "network:lan").data
        again = converted(domain_edit.read(away), number, "bridge:br0")
        assert domain_edit.read(again.data).nics == domain_edit.read(once).nics
        assert converted(domain_edit.read(again.data), number, "bridge:br0").spans == ()


class Driver:
    """libvirt's own parser and checks, by its test driver: no daemon, nothing real."""

    def __init__(self) -> None:
        libvirt.registerErrorHandler(lambda *_: None, None)
        self.connection = libvirt.open("test:///default")

    def takes(self, data: bytes) -> str | None:
        """The NICs as libvirt writes them after it read them, or None if it does not take them."""
        root = etree.fromstring(data)
        root.set("type", "test")  # the only hypervisor that it has
        for alien in root.xpath("os|*[namespace-uri()]|uuid|devices/*[not(self::interface)]"):
            root.remove(alien) if alien.getparent() is root else alien.getparent().remove(alien)
        root.append(etree.fromstring("<os><type>hvm</type></os>"))
        try:
            domain = self.connection.defineXML(etree.tostring(root, encoding="unicode"))
        except libvirt.libvirtError:
            return None
        text: str = domain.XMLDesc()
        domain.undefine()
        return text


@pytest.fixture(scope="module")
def driver() -> Driver:
    return Driver()


NOT_FOR_THE_DRIVER = {
    "live": "classID is not taken of a definition",
    "not-in-schema": "a type that there is not",
}
"""Domains that libvirt itself does not take as they are, and why."""


@pytest.mark.parametrize("folder", DOMAINS, ids=lambda x: x.name)
def test_libvirt_takes_it_and_drops_nothing_of_it(folder: Path, driver: Driver) -> None:
    """What stays really is valid there: libvirt's parser keeps every element of it."""
    data = data_of(folder)
    if b"'passt'" in data and not knows_passt():
        return
    before = driver.takes(data)
    assert (before is None) == (folder.name in NOT_FOR_THE_DRIVER), libvirt.virGetLastErrorMessage()
    if before is None:
        return
    domain = domain_edit.read(data)
    for number in range(1, len(domain.nics) + 1):
        for target in TARGETS:
            try:
                after = converted(domain, number, target).data
            except Refused:
                continue
            if target == "user:passt" and not knows_passt():
                continue
            seen = driver.takes(after)
            assert seen is not None, f"NIC {number} to {target}: {libvirt.virGetLastErrorMessage()}"
            if after == data:
                continue
            mine, theirs = nic_of(after, number), nic_of(seen, number)
            lost = names(nic_of(data, number)) - names(nic_of(before, number))
            assert names(mine) - lost <= names(theirs), f"NIC {number} to {target}"


def nic_of(xml: bytes | str, number: int) -> etree._Element:
    return etree.fromstring(xml).findall("devices/interface")[number - 1]


def names(nic: etree._Element) -> set[str]:
    """The elements that say something."""
    return {str(x.tag) for x in nic if isinstance(x.tag, str) and (x.attrib or len(x))}


def test_every_kind_of_nic_of_the_schema_is_among_the_cases() -> None:
    common = etree.parse(str(SCHEMA.with_name("domaincommon.rng")))
    space = {"r": "http://relaxng.org/ns/structure/1.0"}
    kinds = common.xpath(
        "//r:define[@name='interface']//r:attribute[@name='type'][parent::r:group"
        "/parent::r:choice/parent::r:element[@name='interface']]//r:value/text()",
        namespaces=space,
    )
    seen = {nic.type for folder in DOMAINS for nic in domain_edit.read(data_of(folder)).nics}
    assert len(kinds) > 10
    assert set(kinds) <= seen


def test_a_refused_nic_leaves_all_as_it_was() -> None:
    folder = next(x for x in DOMAINS if x.name == "hostdev")
    domain = domain_edit.read(data_of(folder))
    edits = [NicEdit(number=n, target=parse_target("bridge:br0")) for n in (1, 2)]
    with pytest.raises(KvmnetError, match=r"NIC 2 .* can not be put on bridge:br0"):
        domain_edit.convert(domain, edits)


def test_several_nics_at_once_are_each_as_if_alone() -> None:
    folder = next(x for x in DOMAINS if x.name == "sockets")
    domain = domain_edit.read(data_of(folder))
    numbers = range(1, len(domain.nics) + 1)
    edits = [NicEdit(number=n, target=parse_target("bridge:br0")) for n in reversed(numbers)]
    together = domain_edit.convert(domain, edits)
    assert [x.number for x in together.nics] == list(numbers)
    one_by_one = domain
    for number in numbers:
        one_by_one = domain_edit.read(converted(one_by_one, number, "bridge:br0").data)
    assert together.data == one_by_one.located.data
