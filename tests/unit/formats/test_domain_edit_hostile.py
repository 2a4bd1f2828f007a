"""Files of unknown origin: no crash, nothing fetched or expanded, nothing else touched."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from kvmnet.errors import InvalidInput, KvmnetError, Refused
from kvmnet.formats import domain_edit
from kvmnet.formats.domain_edit import NicEdit
from kvmnet.formats.domain_edit_diff import unified
from kvmnet.formats.domain_edit_scan import MAX_BYTES
from kvmnet.model.target import Target, parse_target

DOMAINS = sorted(Path(__file__).parent.glob("domains/*/domain.xml"))
TARGETS = [parse_target(x) for x in ("network:lan", "bridge:br0", "direct:eth1:vepa", "user")]
DOMAIN = "<domain type='kvm'><name>g</name><devices>{}</devices></domain>"
NIC = "<interface type='network'><source network='{}'/></interface>"


def bomb() -> str:
    steps = "".join(
        f"<!ENTITY {c} '{f'&{b};' * 10}'>" for b, c in zip("abcdefgh", "bcdefghi", strict=True)
    )
    return f"<!DOCTYPE domain [<!ENTITY a 'aaaaaaaaaa'>{steps}]>{DOMAIN.format(NIC.format('&i;'))}"


NO_DOMAINS = {
    "nothing": b"",
    "blank": b" \n",
    "text": b"no xml",
    "cut": DOMAIN.format(NIC)[:60].encode(),
    "two roots": b"<domain/><domain/>",
    "zero byte": b"<domain>\x00</domain>",
    "saved memory": b"LibvirtQemudSave\x02\x00\x00\x00<domain/>",
    "network": b"<network><name>default</name></network>",
    "other namespace": b"<domain xmlns='urn:other'/>",
    "not UTF-8": b"<domain><name>\xff\xfe</name></domain>",
    "surrogate": b"<domain><name>\xed\xa0\x80</name></domain>",
    "half of UTF-16": DOMAIN.format(NIC).encode("utf-16")[:-1],
    "UTF-16 said, none there": b"<?xml version='1.0' encoding='UTF-16'?><domain/>",
    "unknown encoding": b"<?xml version='1.0' encoding='x-none'?><domain/>",
    "missing iso": b"<?xml version='1.0' encoding='iso-8859-99'?><domain/>",
    "shift-jis": b"<?xml version='1.0' encoding='shift_jis'?><domain/>",
    "codec that is none": b"<?xml version='1.0' encoding='unicode_escape'?><domain/>",
    "utf-7": b"<?xml version='1.0' encoding='utf-7'?><domain/>",
    "doctype": b"<!DOCTYPE domain><domain/>",
    "external doctype": b"<!DOCTYPE domain SYSTEM 'http://127.0.0.1:9/x.dtd'><domain/>",
    "external entity": b"<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/hostname'>]>"
    b"<domain><name>&x;</name></domain>",
    "parameter entity": b"<!DOCTYPE domain [<!ENTITY % p SYSTEM 'file:///etc/hostname'> %p;]>"
    b"<domain/>",
    "bomb": bomb().encode(),
    "undefined entity": b"<domain><name>&nbsp;</name></domain>",
    "deep": b"<domain>" + b"<a>" * 300 + b"</a>" * 300 + b"</domain>",
    "huge": b"<domain><name>g</name><description>" + b"x" * MAX_BYTES + b"</description></domain>",
    "bad MAC": DOMAIN.format("<interface type='user'><mac address='x'/></interface>").encode(),
    "multicast MAC": DOMAIN.format(
        "<interface type='user'><mac address='01:00:5e:00:00:01'/></interface>"
    ).encode(),
}


@pytest.mark.parametrize("name", NO_DOMAINS)
def test_what_is_no_domain_is_said_to_be_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(*_: object) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr(socket.socket, "connect", fetched)
    with pytest.raises(InvalidInput) as error:
        domain_edit.read(NO_DOMAINS[name])
    hostname = Path("/etc/hostname").read_text().strip()
    assert hostname not in f"{error.value} {error.value.hint}"
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("tag", ["domstatus", "domainsnapshot", "domaincheckpoint", "domainbackup"])
def test_what_is_libvirts_own_is_refused(tag: str) -> None:
    with pytest.raises(Refused, match=f"<{tag}> is not converted"):
        domain_edit.read(f"<{tag}>{DOMAIN.format(NIC)}</{tag}>".encode())


def test_a_large_definition_is_taken() -> None:
    disks = "<disk/>" * 140_000
    domain = domain_edit.read(DOMAIN.format(disks + NIC.format("x") + disks).encode())
    assert len(domain.nics) == 1


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=30)
QUIET = TEXTS.map(lambda x: x.replace("-", "").replace("]", "").replace("?", ""))


@st.composite
def clutter(draw: st.DrawFn) -> str:
    """What may stand between a domain's elements."""
    kind = draw(st.integers(0, 5))
    text = draw(QUIET)
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return (
        f"<!-- {text} <interface type='network'/> -->",
        f"<?note {text}?>",
        f'<disk type="{escaped}"><interface/></disk>',
        f"<x:interface xmlns:x='urn:x' type='network'>{escaped}</x:interface>",
        "\r\n\t ",
        f"<a><![CDATA[{text}<interface type='network'>]]></a>",
    )[kind]


@st.composite
def nics(draw: st.DrawFn) -> str:
    """An `<interface>` as people write it."""
    quote = draw(st.sampled_from("'\""))
    gap = draw(st.sampled_from(["", " ", "\n   ", "\r\n\t"]))
    name = draw(QUIET)
    for old, new in (("&", "&amp;"), ("<", "&#60;"), ("'", "&apos;"), ('"', "&#x22;")):
        name = name.replace(old, new)
    kind, source = draw(
        st.sampled_from(
            [
                ("network", "network"),
                ("bridge", "bridge"),
                ("direct", "dev"),
                ("user", "dev"),
                ("internal", "name"),
            ]
        )
    )
    parts = draw(
        st.lists(
            st.sampled_from(
                [
                    "<mtu size='1400'/>",
                    "<target dev='vnet0'/>",
                    "<bandwidth><inbound floor='1'/></bandwidth>",
                    "<!-- <source bridge='a'/> > -->",
                    "<virtualport type='openvswitch'/>",
                    "<model type='virtio'/>",
                    "<y xmlns='urn:y'><source/></y>",
                    "<![CDATA[</interface>]]>",
                    "<driver queues='4'/>",
                    "<mac address='52:54:00:00:00:01'/>",
                ]
            ),
            max_size=6,
        )
    )
    written = f"<source {source}{gap}={gap}{quote}{name}{quote}{gap}/>"
    inside = gap.join([*parts[:3], written, *parts[3:]])
    return f"<interface{gap or ' '}type={quote}{kind}{quote}{gap}>{inside}{gap}</interface{gap}>"


@settings(max_examples=300, deadline=None)
@given(
    before=st.lists(clutter(), max_size=4), nic=nics(), after=st.lists(clutter(), max_size=4),
    target=st.sampled_from(TARGETS), encoding=st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]),
)  # fmt: skip
def test_the_rest_stays_byte_for_byte(
    before: list[str], nic: str, after: list[str], target: Target, encoding: str
) -> None:
    head, tail = "".join(before), "".join(after)
    begin, end = (x.encode(encoding) for x in DOMAIN.format("\0").split("\0"))
    bom = "".encode(encoding)
    end, middle = (
        f"{tail}</devices></domain>".encode(encoding).removeprefix(bom),
        nic.encode(encoding).removeprefix(bom),
    )
    begin += head.encode(encoding).removeprefix(bom)
    data = begin + middle + end
    domain = domain_edit.read(data)
    assert domain.located.nics == ((len(begin), len(begin) + len(middle)),)
    done = domain_edit.convert(domain, [NicEdit(number=1, target=target)])
    assert done.data.startswith(begin) and done.data.endswith(end)
    root = etree.fromstring(done.data)
    [element] = root.findall("devices/interface")
    assert element.get("type") == str(target).partition(":")[0]
    again = domain_edit.convert(domain_edit.read(done.data), [NicEdit(number=1, target=target)])
    assert again.data == done.data


@settings(max_examples=400, deadline=None)
@given(
    which=st.sampled_from(DOMAINS), data=st.data(), target=st.sampled_from(TARGETS),
)  # fmt: skip
def test_a_damaged_file_is_converted_or_refused_but_never_crashes(
    which: Path, data: st.DataObject, target: Target
) -> None:
    raw = bytearray(which.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        cut = data.draw(st.integers(0, 12))
        raw[at : at + cut] = data.draw(
            st.one_of(
                st.binary(max_size=6), st.sampled_from([b"<", b">", b"'", b"&", b"/>", b"<!--"])
            )
        )
    try:
        domain = domain_edit.read(bytes(raw))
        edits = [NicEdit(number=n, target=target) for n in range(1, len(domain.nics) + 1)]
        done = domain_edit.convert(domain, edits)
        unified(domain, done, "old", "new")
    except KvmnetError:
        return
    assert len(domain_edit.read(done.data).nics) == len(domain.nics)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_understood(raw: bytes) -> None:
    for data in (raw, b"<domain>" + raw + b"</domain>", DOMAIN.encode().replace(b"{}", raw)):
        try:
            domain_edit.read(data)
        except KvmnetError:
            continue
