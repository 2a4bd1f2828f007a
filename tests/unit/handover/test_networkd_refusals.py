"""What networkd's files do not allow, ports that come and go, and how the text is cut."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kvmnet.errors import InvalidInput, NotFound, Refused
from kvmnet.formats import networkd_bridge as bridge
from kvmnet.formats import networkd_units as units
from kvmnet.model.handover import FileState, HandedOver, NetworkdReload
from kvmnet.model.networkd import NetworkdLink, NetworkdView
from kvmnet.model.takeover import BridgePort, Takeover
from kvmnet.model.values import Mac

MAC = Mac("52:54:00:aa:bb:01")
OLD = "/etc/systemd/network/20-eth0.network"
TAKEOVER = Takeover(
    bridge="br0", mac=MAC, ports=(BridgePort(name="eth0", mac=MAC),), heir_of="eth0"
)


def _file(text: str, path: str = OLD) -> FileState:
    return FileState(path=path, text=text)


def _link(name: str = "eth0", unit: str | None = OLD) -> NetworkdLink:
    return NetworkdLink(name=name, unit=unit, state="configured", mac=MAC, permanent_mac=MAC)


def _view(text: str, *more: FileState) -> NetworkdView:
    files = (_file(f"[Match]\nName=eth0\n{text}"), *more)
    return NetworkdView(files=files, links=(_link(),))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[Network]\nBridge=br7\n", "Bridge=br7"),
        ("[Network]\nBond=bond0\n", "Bond=bond0"),
        ("[Network]\nShinyNewThing=yes\n", "ShinyNewThing"),
        ("[ShinyNewSection]\nKey=1\n", "ShinyNewSection"),
        ("[Link]\nUnmanaged=yes\n", "Unmanaged"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(text: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        bridge.create(_view(text), TAKEOVER)
    assert reason in caught.value.why


def test_what_others_keep_for_themselves_is_passed_over() -> None:
    made = bridge.create(_view("[X-Ansible]\nRole=web\n[Network]\nX-Note=1\nDHCP=yes\n"), TAKEOVER)
    assert "DHCP=yes" in _text(made, "br0.network")


@pytest.mark.parametrize("state", ["unmanaged", "linger"])
def test_a_nic_that_networkd_leaves_alone_is_refused(state: str) -> None:
    view = _view("[Network]\nDHCP=yes\n")
    link = NetworkdLink(name="eth0", unit=OLD, state=state)
    with pytest.raises(Refused, match="does not manage eth0"):
        bridge.create(replace(view, links=(link,)), TAKEOVER)


def test_files_that_networkd_has_not_read_yet_are_refused() -> None:
    view = replace(_view(""), links=(_link(unit="/etc/systemd/network/99-gone.network"),))
    with pytest.raises(Refused, match="not read its files") as caught:
        bridge.create(view, TAKEOVER)
    assert caught.value.hint == "networkctl reload"


def test_a_bridge_of_that_name_in_another_file_is_refused() -> None:
    other = _file("[NetDev]\nName=br0\nKind=bridge\n", "/etc/systemd/network/25-lan.netdev")
    with pytest.raises(Refused, match="makes a br0 already"):
        bridge.create(_view("", other), TAKEOVER)


def test_a_file_that_comes_before_all_numbers_is_refused() -> None:
    other = _file("[Match]\nName=x\n", "/etc/systemd/network/00-00-all.network")
    with pytest.raises(Refused, match="comes before the others"):
        bridge.create(_view("", other), TAKEOVER)


def test_a_masked_file_counts_for_nothing() -> None:
    masked = _file("", "/etc/systemd/network/00-00-all.network")
    below = _file("[Match]\nName=*\n", "/usr/lib/systemd/network/00-00-all.network")
    assert bridge.choose_prefix(_view("", masked, below)) == "10-kvmnet-"


def test_a_name_with_a_wildcard_is_no_name_for_a_file() -> None:
    with pytest.raises(InvalidInput, match="other links"):
        bridge.create(_view(""), replace(TAKEOVER, bridge="br*"))


def test_a_port_is_added_and_the_bridge_s_own_file_stays() -> None:
    view, first = _bridged()
    second = BridgePort(name="eth1", mac=Mac("52:54:00:aa:bb:02"))
    after = replace(TAKEOVER, ports=(*TAKEOVER.ports, second))
    made = bridge.set_ports(view, TAKEOVER, after)
    assert [x.path for x in made.files] == ["/etc/systemd/network/10-kvmnet-eth1.network"]
    assert made.files_before[0].text is None
    assert made.calls_first == ()
    assert _released(made.calls_back_first) == ["eth1"]
    assert first.files[0].path not in {x.path for x in made.files}


def test_a_port_that_goes_is_let_go_before_the_links_change() -> None:
    view, _ = _bridged()
    made = bridge.set_ports(view, TAKEOVER, replace(TAKEOVER, ports=()))
    assert [(x.path, x.text) for x in made.files] == [
        ("/etc/systemd/network/10-kvmnet-eth0.network", None)
    ]
    assert made.files_before[0].text is not None
    assert _released(made.calls_first) == ["eth0"]


def test_a_port_by_the_administrator_s_file_is_left_to_the_administrator() -> None:
    view, _ = _bridged()
    unit = "/etc/systemd/network/05-mine.network"
    mine = _file("[Match]\nName=eth0\n[Network]\nBridge=br0\n", unit)
    seen = replace(view, files=(mine, *view.files), links=(_link(unit=unit), *view.links[1:]))
    with pytest.raises(Refused, match="not kvmnet's"):
        bridge.set_ports(seen, TAKEOVER, replace(TAKEOVER, ports=()))


@pytest.mark.parametrize("what", ["delete", "set_ports"])
def test_a_bridge_that_networkd_does_not_make_is_not_found(what: str) -> None:
    with pytest.raises(NotFound, match="makes no bridge br0"):
        if what == "delete":
            bridge.delete(_view(""), TAKEOVER)
        else:
            bridge.set_ports(_view(""), TAKEOVER, TAKEOVER)


def test_what_was_changed_on_the_bridge_meanwhile_goes_to_the_nic() -> None:
    view, made = _bridged()
    files = tuple(
        replace(x, text=f"{x.text}\n[Route]\n# to the lab\nDestination=198.51.100.0/24\n")
        if x.path.endswith("br0.network")
        else x
        for x in view.files
    )
    gone = bridge.delete(replace(view, files=files), TAKEOVER)
    written = {x.path: x.text for x in gone.files}
    nic = written["/etc/systemd/network/10-kvmnet-eth0.network"] or ""
    assert "# to the lab\nDestination=198.51.100.0/24\n" in nic
    assert "DHCP=yes" in nic and "Bridge=" not in nic and "IAID" not in nic
    assert [x for x, text in written.items() if text is None] == [
        "/etc/systemd/network/10-kvmnet-br0.netdev",
        "/etc/systemd/network/10-kvmnet-br0.network",
    ]
    assert {x.path: x.text for x in gone.files_before} == {
        x.path: x.text for x in files if x.path in written
    }
    assert made.files[0].path in written


def test_an_iaid_and_a_client_identifier_that_were_chosen_stay_as_they_are() -> None:
    chosen = _view("[Network]\nDHCP=yes\n[DHCPv4]\nIAID=5\n[DHCPv6]\nIAID=6\n")
    leased = replace(chosen.links[0], client_id="ff00000005000200000001", iaid6=6)
    made = bridge.create(replace(chosen, links=(leased,)), TAKEOVER)
    assert _text(made, "br0.network").count("IAID=") == 2
    by_mac = _view("[Network]\nDHCP=yes\n[DHCPv4]\nClientIdentifier=mac\n")
    made = bridge.create(replace(by_mac, links=(leased,)), TAKEOVER)
    assert "IAID=5" not in _text(made, "br0.network")


@pytest.mark.parametrize("text", ["Name=eth0\n", "[Match]\nno assignment\n", "[Match\nName=eth0\n"])
def test_what_is_no_unit_is_said_with_its_path(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"/etc/x\.network"):
        units.parse(text, "/etc/x.network")


def test_a_continued_line_is_one_value_and_a_comment_is_none() -> None:
    text = "[Network]\n# one \\\nDNS=192.0.2.1 \\\n  192.0.2.2\nDNS=\nDNS=192.0.2.3\n"
    parsed = units.parse(text, "x")
    assert [x.value.split() for x in parsed[0].entries] == [
        ["192.0.2.1", "192.0.2.2"],
        [],
        ["192.0.2.3"],
    ]
    assert units.values(parsed, "Network", "DNS") == ("192.0.2.3",)


def _bridged() -> tuple[NetworkdView, HandedOver]:
    """The view after a bridge was made, and the hand-over that made it."""
    before = _view("[Network]\nDHCP=yes\n")
    leased = replace(before.links[0], client_id="ff00000005000200000001")
    made = bridge.create(replace(before, links=(leased,)), TAKEOVER)
    call = made.calls[0]
    assert isinstance(call, NetworkdReload)
    links = tuple(NetworkdLink(name=x.link, unit=x.unit, state="configured") for x in call.links)
    return NetworkdView(files=(*made.files, *before.files), links=links[::-1]), made


def _text(made: HandedOver, end: str) -> str:
    return next(x.text or "" for x in made.files if x.path.endswith(end))


def _released(calls: tuple[object, ...]) -> list[str]:
    return [x.link for call in calls if isinstance(call, NetworkdReload)
            for x in call.links if x.unit is None]  # fmt: skip
