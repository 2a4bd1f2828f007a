"""Domain XML of unknown origin."""

from __future__ import annotations

import pytest

from kvmnet.errors import InvalidInput
from kvmnet.formats import domain_xml

NIC = "<interface type='bridge'><source bridge='{}'/></interface>"
DOMAIN = "<domain><name>g</name><devices>{}</devices></domain>"
BOMB = (
    "<!DOCTYPE domain [<!ENTITY a 'aaaaaaaaaa'>"
    + "".join(f"<!ENTITY {c} '&{b};&{b};&{b};&{b};&{b};&{b};&{b};&{b};&{b};&{b};'>"
              for b, c in zip("abcdefgh", "bcdefghi", strict=True))
    + "]><domain><name>&i;</name></domain>"
)  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no xml",
        "<domain>",
        "<network/>",
        "<domain xmlns='urn:other'/>",
        "<domain>\x00</domain>",
        "<domain>\ud800</domain>",
        "<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/hostname'>]>"
        "<domain><name>&x;</name></domain>",
        BOMB,
        DOMAIN.format("<interface type='bridge'><mac address='nonsense'/></interface>"),
        DOMAIN.format("<interface type='bridge'><mac address='01:00:5e:00:00:01'/></interface>"),
        DOMAIN.format("<interface type='bridge'><mtu size='huge'/></interface>"),
        "<domain>" + "<a>" * 300 + "</a>" * 300 + "</domain>",
    ],
    ids=range(13),
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as error:
        domain_xml.parse(text)
    assert "hostname" not in str(error.value)


def test_names_come_as_they_are() -> None:
    parsed = domain_xml.parse(DOMAIN.format(NIC.format("b&#233;&lt;r")))
    assert parsed.nics[0].source == "b\u00e9<r"


def test_declared_encoding_is_not_believed() -> None:
    text = "<?xml version='1.0' encoding='UTF-16'?>" + DOMAIN.format(NIC.format("é"))
    assert domain_xml.parse(text).nics[0].source == "é"


def test_no_devices() -> None:
    assert domain_xml.parse("<domain id='x'><name>g</name></domain>").nics == ()
