"""interfaces(5) goes in and comes out as it is, byte for byte, unless something is asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmnet.errors import Refused
from kvmnet.formats import interfaces_bridge
from kvmnet.formats import interfaces_marks as marks
from kvmnet.formats.interfaces_hooks import names, rewire
from kvmnet.formats.interfaces_lines import Include, Sheet, blocks, split, swap_words
from kvmnet.formats.interfaces_view import IfupdownView
from kvmnet.model.handover import FileState
from kvmnet.model.takeover import BridgePort, Takeover
from kvmnet.model.values import Mac

MAIN = "/etc/network/interfaces"
PIECES = st.sampled_from(
    ["auto", "iface", "eth0", "inet", "static", "#", "\\", "\\\n", "\n", " ", "\t", "address",
     "192.0.2.1/24", "source", "mapping", "up", "ip route add default dev eth0", "\r\n", "\x0c",
     "allow-hotplug", "é", "\udcff", "br0", "$IFACE", "inherits", "template"]
)  # fmt: skip
TEXT = st.lists(PIECES, max_size=60).map("".join)

WILD = {
    "several NICs, one pattern": """\
auto lo /eth*
iface lo inet loopback
iface eth inet dhcp
    request-hostname  x   y
""",
    "mapping": """\
mapping eth0 eth1
\tscript /usr/local/sbin/map-scheme
\tmap HOME eth0-home
\tmap WORK eth0-work

iface eth0-home inet static
\taddress 192.0.2.1
\tnetmask 255.255.255.0
\tup flush-mail
""",
    "templates, odd indentation": """\
  template wan inet static
\t   mtu   1492
iface eth1 inet static inherits wan
address 198.51.100.3/29
 iface eth1 inet6 auto
    dhcp 1
""",
    "a bridge with all the trimmings": """\
auto br0
iface br0 inet static
    address 192.0.2.2/24
    bridge_ports regex eth.* noregex wlan0
    bridge_ageing 300
    bridge_bridgeprio 32768
    bridge_pathcost eth0 100
    bridge_hw eth0
    bridge_maxwait 20 # not a comment here
""",
    "tunnels and ppp": """\
iface tun6 inet6 v4tunnel
    endpoint 203.0.113.9
    address 2001:db8::2/64
iface dsl inet ppp
    provider dsl
    pre-up /bin/ip link set eth1 up \\
        # joined to the line above
no-auto-down eth1
no-scripts eth*
rename eth7=lan
""",
}


def state(text: str, path: str = MAIN) -> FileState:
    return FileState(path=path, text=text)


@pytest.mark.parametrize("text", WILD.values(), ids=WILD)
def test_what_is_found_in_the_wild_comes_back(text: str) -> None:
    sheet = Sheet(state(text))
    assert sheet.text() == text
    assert blocks((sheet,), ())
    assert marks.restore(text, "br0") == text


@given(TEXT)
def test_any_text_comes_back(text: str) -> None:
    sheet = Sheet(state(text))
    assert "".join(line.raw for line in sheet.lines) == text
    assert sheet.text() == text
    assert marks.restore(text, "br0") == text


@given(TEXT)
def test_words_that_are_swapped_for_themselves_change_nothing(text: str) -> None:
    for line in split(text):
        assert swap_words(line.raw, lambda word: word) == line.raw


@given(st.lists(PIECES, max_size=8).map("".join), st.integers(0, 3))
def test_what_is_put_aside_comes_back(raw: str, lines: int) -> None:
    instead = tuple(f"iface x{n} inet manual\n" for n in range(lines))
    aside = "".join(marks.aside(raw, "br0", "eth1", instead))
    assert not [x for x in split(aside) if not x.is_blank and not x.raw.startswith("iface x")]
    around = f"auto lo\n{aside}auto eth9\n"
    back = marks.restore(around, "br0").removeprefix("auto lo\n").removesuffix("auto eth9\n")
    assert [x for x in back.split("\n") if x.strip()] == [x for x in raw.split("\n") if x.strip()]
    assert marks.restore(around, "br0", "eth2") == marks.restore(around, "br7") == around


OPTIONS = st.sampled_from(
    ["    address 192.0.2.1/24\n", "\tgateway 192.0.2.254\n", "# why\n", "\n", "  mtu 1400 \n",
     "    up ip route add 10.0.0.0/8 \\\n        dev eth0\n", "   hwaddress 02:00:00:00:00:01\n",
     "\tpost-up ethtool -s $IFACE wol g\n", "  unknown \\\n", "down ip rule del iif eth0\n"]
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(["inet static", "inet dhcp", "inet6 auto"]),
                          st.lists(OPTIONS, max_size=6)), min_size=1, max_size=3),
       st.sampled_from(["auto lo eth0\n", "allow-hotplug eth0 eth5\n", "", "auto eth0\nauto lo\n"]),
       st.booleans())  # fmt: skip
def test_delete_gives_back_what_create_took(
    stanzas: list[tuple[str, list[str]]], selection: str, utils: bool
) -> None:
    text = selection + "".join(f"iface eth0 {kind}\n{''.join(own)}" for kind, own in stanzas)
    text += "iface eth9 inet manual\n"
    if "\\\niface" in text:
        return  # the line above swallows the stanza
    mac = Mac("52:54:00:12:34:56")
    ports = (BridgePort(name="eth0", mac=mac), BridgePort(name="eth9"))
    takeover = Takeover(bridge="br0", mac=mac, ports=ports, heir_of="eth0")
    view = IfupdownView(files=(state(text),), has_bridge_utils=utils)
    (made,) = interfaces_bridge.create(view, takeover).files
    sheets = (Sheet(made),)
    assert {x.name for x in blocks(sheets, ()) if x.method != "manual"} <= {"br0"}
    assert any(x.keyword == "auto" and "br0" in x.words for x in sheets[0].lines)
    later = IfupdownView(files=(made,), has_bridge_utils=utils)
    (back,) = interfaces_bridge.delete(later, takeover).files
    assert back.text == text


def test_files_are_read_in_ifupdowns_order() -> None:
    first = Sheet(state("source a\niface eth0 inet6 auto\n"))
    second = Sheet(state("iface eth0 inet dhcp\n", "/etc/network/a"))
    includes = (Include(path=MAIN, line="source a", target="/etc/network/a"),)
    assert [x.family for x in blocks((first, second), includes)] == ["inet", "inet6"]


@pytest.mark.parametrize(
    ("command", "becomes"),
    [
        ("up ip route add 10.0.0.0/8 via 192.0.2.9 dev eth0", "dev br0"),
        ("up iptables -A INPUT -i eth0 -p tcp -j ACCEPT", "-i br0"),
        ("up iptables -A FORWARD --out-interface=eth0 -j DROP", "--out-interface=br0"),
        ("up ip rule add iif eth0 lookup 7", "iif br0"),
        ("up echo 2 > /proc/sys/net/ipv4/conf/eth0/rp_filter", "conf/br0/rp_filter"),
        ("up sysctl net.ipv6.conf.eth0.accept_ra=2 || true", "conf.br0.accept_ra"),
        ("up nft add rule ip n p oifname \"eth0\" masquerade", 'oifname "br0"'),
    ],
)  # fmt: skip
def test_a_hook_that_speaks_of_the_hosts_traffic_follows(command: str, becomes: str) -> None:
    text, clear = rewire(command, "eth0", "br0")
    assert becomes in text and clear and not names(text, "eth0")


@pytest.mark.parametrize(
    "command",
    [
        "up ethtool -K eth0 tso off",
        "pre-up ip link set dev eth0 txqueuelen 5000",
        "up tc qdisc add dev eth0 root fq",
        "up ip route add 10.0.0.0/8 dev eth0.100",
        "up echo 1 > /sys/class/net/eth0/gro_flush_timeout",
        "up ip route add 10.0.0.0/8 dev $IFACE",
    ],
)
def test_a_hook_that_speaks_of_the_nic_stays(command: str) -> None:
    assert rewire(command, "eth0", "br0") == (command, True)


def test_a_hook_that_could_mean_either_is_not_clear() -> None:
    assert not rewire("up /root/shape eth0; ip route add default dev eth0", "eth0", "br0")[1]


@pytest.mark.parametrize("pattern", ["/eth*", "/*/1", "/mac/52:54:00:*", "/driver/*=wan"])
def test_a_pattern_that_may_mean_the_nic_is_refused(pattern: str) -> None:
    text = f"auto {pattern}\niface eth0 inet dhcp\n"
    mac = Mac("52:54:00:12:34:56")
    takeover = Takeover(bridge="br0", mac=mac, ports=(BridgePort(name="eth0"),), heir_of="eth0")
    with pytest.raises(Refused, match="line 1"):
        interfaces_bridge.create(IfupdownView(files=(state(text),)), takeover)
