"""The bytes and texts of a trace: packets, filters, the kernel's messages, types and symbols."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmnet.errors import InvalidInput
from kvmnet.formats import capture_filter, kallsyms, nft_trace, tracefs_events
from kvmnet.formats.btf import Btf
from kvmnet.formats.drop_program import Offsets, assemble
from kvmnet.formats.ethernet import checksum
from kvmnet.formats.trace_packet import decode, dns_token, encode, patterns
from kvmnet.model.trace import Flow, LoggedDrop

HERE = Path(__file__).parent / "trace"
TCP = Flow(protocol="tcp", source="10.0.0.1", destination="10.0.0.2", sport=40000, dport=80,
           token=0xFEEDBEEF)  # fmt: skip
UDP = Flow(protocol="udp", source="10.0.0.1", destination="10.0.0.2", sport=40000, dport=999,
           token=0xFEEDBEEF)  # fmt: skip
ICMP = Flow(protocol="icmp", source="10.0.0.1", destination="10.0.0.2", token=0xFEEDBEEF)
TCP6 = Flow(protocol="tcp", source="fd00::1", destination="fd00::2", sport=40000, dport=80,
            token=0xFEEDBEEF)  # fmt: skip
UDP6 = Flow(protocol="udp", source="fd00::1", destination="fd00::2", sport=40000, dport=53,
            token=dns_token(0xFEEDBEEF))  # fmt: skip
ICMP6 = Flow(protocol="icmp", source="fd00::1", destination="fd00::2", token=0xFEEDBEEF)
FLOWS = [TCP, UDP, ICMP, TCP6, UDP6, ICMP6]


@pytest.mark.parametrize("flow", FLOWS, ids=str)
def test_what_is_sent_is_known_again(flow: Flow) -> None:
    raw = encode(flow, 3)
    found = decode(raw, patterns(flow))
    assert found is not None and (found.role, found.number) == ("request", 3)
    assert (found.source, found.destination) == (flow.source, flow.destination)
    assert (found.sport, found.dport) == (flow.sport, flow.dport)
    for other in FLOWS:
        if other is not flow and (other.family, other.protocol) != (flow.family, flow.protocol):
            assert decode(raw, patterns(other)) is None
    assert decode(raw[:24], patterns(flow)) is None
    assert decode(b"", patterns(flow)) is None


@pytest.mark.parametrize("flow", FLOWS, ids=str)
def test_checksums_are_right(flow: Flow) -> None:
    raw = encode(flow, 1)
    head = 40 if flow.family == 6 else 20
    if flow.family == 4:
        assert checksum(raw[:20]) == 0
    protocol = raw[6] if flow.family == 6 else raw[9]
    ends = raw[8:40] if flow.family == 6 else raw[12:20]
    length = len(raw) - head
    end = struct.pack("!II", length, protocol) if flow.family == 6 else (
        struct.pack("!HH", protocol, length))  # fmt: skip
    pseudo = ends + end
    assert checksum((b"" if protocol == 1 else pseudo) + raw[head:]) == 0


def answer(flow: Flow, flags: int) -> bytes:
    raw = encode(flow, 1)
    swapped = raw[:12] + raw[16:20] + raw[12:16]
    return swapped + struct.pack("!HHIIBBHHH", flow.dport, flow.sport, 77, flow.token + 1, 5 << 4,
                                 flags, 0, 0, 0)  # fmt: skip


@pytest.mark.parametrize(("flags", "note"), [(0x12, "SYN-ACK"), (0x14, "RST"), (0x10, "ACK")])
def test_answers_to_tcp(flags: int, note: str) -> None:
    found = decode(answer(TCP, flags), patterns(TCP))
    assert found is not None and (found.role, found.note, found.number) == ("reply", note, None)


def test_echo_reply_tells_its_number() -> None:
    raw = bytearray(encode(ICMP, 2))
    raw[20] = 0
    found = decode(bytes(raw), patterns(ICMP))
    assert found is not None and (found.role, found.number) == ("reply", 2)


@pytest.mark.parametrize("flow", [TCP, UDP, ICMP])
@pytest.mark.parametrize("quoted", [28, 60])
def test_icmp_errors_about_it(flow: Flow, quoted: int) -> None:
    inner = encode(flow, 2)
    error = inner[:9] + b"\x01" + inner[10:12] + b"\xc0\x00\x02\x01" + inner[12:16]
    raw = error + struct.pack("!BBHI", 3, 13, 0, 0) + inner[:quoted]
    found = decode(raw, patterns(flow))
    assert found is not None and found.role == "error" and found.number == 2
    assert found.note == "administratively prohibited" and found.source == "192.0.2.1"


def runs_filter(code: bytes, packet: bytes) -> int:
    """Classic BPF, as much of it as is used here; a load beyond the end refuses the packet."""
    rows = [struct.unpack_from("HBBI", code, at) for at in range(0, len(code), 8)]
    at = register = 0
    while True:
        kind, yes, no, value = rows[at]
        at += 1
        if kind == 0x20:
            offset = value - 0xFFF00000
            if offset + 4 > len(packet):
                return 0
            register = int.from_bytes(packet[offset : offset + 4], "big")
        elif kind == 0x54:
            register &= value
        elif kind == 0x15:
            at += yes if register == value else no
        else:
            assert kind == 0x06
            return int(value)


@pytest.mark.parametrize("flow", FLOWS, ids=str)
def test_captures_take_ours_only(flow: Flow) -> None:
    code = capture_filter.instructions(patterns(flow))
    for other in FLOWS:
        taken = runs_filter(code, encode(other, 1)) > 0
        assert taken == (other is flow)


@given(noise=st.binary(max_size=120), flow=st.sampled_from(FLOWS))
def test_filter_and_decoder_agree_on_anything(noise: bytes, flow: Flow) -> None:
    code = capture_filter.instructions(patterns(flow))
    if runs_filter(code, noise):
        assert decode(noise, patterns(flow)) is not None


def test_answers_pass_the_filter() -> None:
    assert runs_filter(capture_filter.instructions(patterns(TCP)), answer(TCP, 0x12)) > 0


def test_the_kernels_messages_about_rules() -> None:
    flow = Flow(protocol="tcp", source="10.9.0.1", destination="10.9.0.2", sport=40000, dport=80,
                token=0xDEADBEE1)  # fmt: skip
    lines = (HERE / "nft_trace.hex").read_text().split()
    wanted = patterns(flow)
    hits = [x for line in lines for x in nft_trace.parse(bytes.fromhex(line), 1.0, wanted)]
    told = [(x.family, x.table.split("_")[0], x.chain, x.kind, x.verdict, x.target)
            for x in hits if not x.table.startswith("kvmnet")]  # fmt: skip
    assert told == [
        ("inet", "u", "o", "rule", "jump", "j"),
        ("inet", "u", "j", "rule", "continue", None),
        ("inet", "u", "j", "rule", "return", None),
        ("inet", "u", "o", "rule", "continue", None),
        ("inet", "u", "o", "policy", "accept", None),
        ("ip", "p", "o", "rule", "continue", None),
        ("ip", "p", "o", "policy", "drop", None),
    ]
    first = next(x for x in hits if x.table == "u")
    assert first.packet is not None and first.packet.number == 1 and first.oif
    assert first.handle and hits[-1].mark == 7


@given(noise=st.binary(max_size=300))
def test_any_bytes_from_netlink_do_no_harm(noise: bytes) -> None:
    list(nft_trace.parse(noise, 0.0, patterns(TCP)))
    framed = struct.pack("=IHHII", 16 + len(noise), nft_trace.TRACE_MESSAGE, 0, 0, 0) + noise
    list(nft_trace.parse(framed, 0.0, patterns(TCP)))


def test_rules_that_mark_what_is_traced() -> None:
    text = nft_trace.table("inet", "kvmnet_trace_x", patterns(ICMP))
    lines = text.splitlines()
    assert lines[0] == "add table inet kvmnet_trace_x { flags owner; }"
    assert "type filter hook prerouting priority -450" in lines[1]
    assert all(x.endswith("meta nftrace set 1") for x in lines if x.startswith("add rule"))
    assert "@nh,224,32 0xfeedbeef" in text and "@nh,64,32 & 0xff0000 == 0x10000" in text


SYMBOLS = b"""\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _text
ffffffff81000100 t ip_error
ffffffff81000200 T nft_do_chain.constprop.0
ffffffff81000300 D some_data
ffffffff81000400 T last
ffffffff82000000 B _end
ffffffffc0000100 t br_handle_frame\t[bridge]
ffffffffc0000000 t br_init\t[bridge]
ffffffffc0000200 d br_data\t[bridge]
"""


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (0xFFFFFFFF81000100, "ip_error"),
        (0xFFFFFFFF810001FF, "ip_error"),
        (0xFFFFFFFF81000201, "nft_do_chain"),
        (0xFFFFFFFF81000310, "nft_do_chain"),
        (0xFFFFFFFF81000410, "last"),
        (0xFFFFFFFFC0000150, "br_handle_frame"),
        (0xFFFFFFFFC0000010, "br_init"),
    ],
)
def test_functions_of_addresses(place: int, name: str) -> None:
    assert kallsyms.find(SYMBOLS, [place]) == {place: name}


def test_a_kernel_that_hides_its_addresses() -> None:
    hidden = b"0000000000000000 T _text\n0000000000000000 T ip_error\n"
    assert kallsyms.find(hidden, [0xFFFFFFFF81000100]) == {}
    assert kallsyms.find(b"", [1]) == {}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            "          <idle>-0       [001] ..s1.  1216.894235: kfree_skb: skbaddr=00000000a1 "
            "rx_sk=0 protocol=2048 location=nft_do_chain+0x1a8/0x5c0 reason: NETFILTER_DROP",
            LoggedDrop(at=1216.894235, reason="NETFILTER_DROP", function="nft_do_chain"),
        ),
        (
            " python3-1234    [000] b..1.    12.000001: kfree_skb: skbaddr=0000000034 "
            "protocol=34525 location=00000000c5a0f8e1 reason: NOT_SPECIFIED",
            LoggedDrop(at=12.000001, reason="NOT_SPECIFIED", function=""),
        ),
        (
            " python3-1234    [000] ..s.    12.000001: kfree_skb: skbaddr=0000000034 protocol=2048 "
            "location=00000000c5a0f8e1",
            LoggedDrop(at=12.000001, reason="", function=""),
        ),
        ("CPU:1 [LOST 12 EVENTS]", None),
        (" a-1 [000] ..s. 12.000001: consume_skb: skbaddr=0000000034 location=x", None),
        ("", None),
    ],
)
def test_lines_of_tracefs(line: str, found: LoggedDrop | None) -> None:
    assert tracefs_events.parse(line) == found


def btf(*, cut: int = 0) -> bytes:
    """struct a { int x; struct { long y; named inner; }; } with typedef named of struct b {z}."""
    names = b"\0a\0b\0x\0y\0z\0inner\0named\0reason\0GOOD\0BAD\0int\0"
    every = names.strip(b"\0").split(b"\0")
    at = {n.decode(): names.index(b"\0" + n + b"\0") + 1 for n in every}
    words = [
        at["int"], 1 << 24, 4, 32,                                    # 1: int
        at["b"], 4 << 24 | 1, 8, at["z"], 1, 32,                      # 2: struct b
        at["named"], 8 << 24, 2,                                      # 3: typedef
        0, 4 << 24 | 2, 16, at["y"], 1, 0, at["inner"], 3, 64,        # 4: the unnamed one
        at["a"], 4 << 24 | 2, 24, at["x"], 1, 0, 0, 4, 64,            # 5: struct a
        at["reason"], 6 << 24 | 2, 4, at["GOOD"], 0, at["BAD"], 7,    # 6: enum
    ]  # fmt: skip
    types = struct.pack(f"<{len(words)}I", *words)[: len(words) * 4 - cut]
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names))
    return head + types + names


def test_offsets_and_names_from_type_information() -> None:
    types = Btf(btf()).read(["a", "reason"])
    assert types.offset("a.x") == 0
    assert types.offset("a.y") == 8
    assert types.offset("a.inner.z") == 20
    assert types.enum("reason") == {0: "GOOD", 7: "BAD"}
    assert types.enum("nothing") == {}
    for path in ("a.nothing", "nothing.x", "a.x.deeper"):
        with pytest.raises(InvalidInput):
            types.offset(path)


def test_broken_type_information() -> None:
    for raw in (b"", b"x" * 100, btf()[:20]):
        with pytest.raises(InvalidInput):
            Btf(raw)
    with pytest.raises(InvalidInput):
        Btf(btf(cut=8)).read(["a"])


@pytest.mark.parametrize("flow", FLOWS, ids=str)
def test_the_program_is_whole(flow: Flow) -> None:
    offsets = Offsets(head=192, network_header=180, device=16, ifindex=224, net=280, inum=140,
                      has_reason=True)  # fmt: skip
    code = assemble(offsets, patterns(flow), 5)
    rows = [struct.unpack_from("<BBhi", code, at) for at in range(0, len(code), 8)]
    assert len(code) % 8 == 0 and rows[-1][0] == 0x95
    for at, (kind, _, jump, _) in enumerate(rows):
        if kind in (0x05, 0x15, 0x55, 0x56):
            assert 0 < at + 1 + jump < len(rows)
