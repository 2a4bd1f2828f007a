"""Rules of the firewall for links with names that mean more in a rule."""

import pytest

from kvmnet.errors import InvalidInput
from kvmnet.formats.opening import iptables_rule, nft_rule
from kvmnet.model.opening import Opening
from kvmnet.model.values import Ip


def opening(link: str) -> Opening:
    return Opening(
        backend="nft", family="inet", table="filter", chain="input", comment="kvmnet:default",
        iif=link, protocol="udp", dport=67,
    )  # fmt: skip


@pytest.mark.parametrize("link", ["virbr+", "virbr*", 'v"accept', "v\\x"])
def test_name_that_would_open_more_than_one_link_is_refused(link: str) -> None:
    with pytest.raises(InvalidInput):
        nft_rule(opening(link))
    with pytest.raises(InvalidInput):
        iptables_rule(opening(link))


def test_plain_names_are_taken() -> None:
    assert 'iifname "br-lan.7" udp dport 67 accept' in " ".join(nft_rule(opening("br-lan.7")))
    assert iptables_rule(opening("virbr0"))[:2] == ("-i", "virbr0")


def test_a_published_port_is_opened_for_one_guest() -> None:
    one = Opening(
        backend="nft", family="ip", table="libvirt_network", chain="forward",
        comment="kvmnet:default", oif="virbr0", protocol="tcp", dport=80,
        destination=Ip("192.168.122.11"),
    )  # fmt: skip
    assert " ".join(nft_rule(one)) == (
        'oifname "virbr0" ip daddr 192.168.122.11 tcp dport 80 accept comment "kvmnet:default"'
    )
    assert " ".join(iptables_rule(one)).startswith("-o virbr0 -d 192.168.122.11 -p tcp --dport 80 ")
