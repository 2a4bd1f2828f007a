from kvmnet.core.demands import demanded
from kvmnet.model.arrangement import Arrangement, LinkTarget
from kvmnet.model.check import AddressThere, ConnectionLives, DnsAnswers, GatewayAnswers, RouteLeads
from kvmnet.model.host import Address, Route
from kvmnet.model.values import Cidr, Ip

GATEWAY = Ip("192.168.77.1")
HOLDS = (
    ConnectionLives(
        local=Ip("192.168.77.10"), local_port=22, remote=Ip("192.168.77.20"), remote_port=4711
    ),
    AddressThere(address=Cidr("192.168.77.10/24")),
    GatewayAnswers(ip=GATEWAY),
    RouteLeads(destination=Ip("198.51.100.1"), gateway=GATEWAY),
    DnsAnswers(server=GATEWAY),
)


def arrangement(link: str, address: str | None, gateway: Ip | None) -> Arrangement:
    addresses = () if address is None else (
        Address(link=link, ip=Ip(address), prefix_len=24, family=4),
    )  # fmt: skip
    default = Route(family=4, destination=Cidr("0.0.0.0/0"), link=link, gateway=gateway)
    return Arrangement(
        links=(LinkTarget(name=link, addresses=addresses),),
        routes=(default,) if gateway is not None else (),
    )


BEFORE = arrangement("eth0", "192.168.77.10", GATEWAY)


def test_everything_is_demanded_of_a_bridge_that_takes_over() -> None:
    assert demanded(HOLDS, BEFORE, arrangement("br0", "192.168.77.10", GATEWAY)) == HOLDS


def test_a_new_address_is_demanded_instead_of_the_old_one_and_what_hangs_on_it() -> None:
    after = arrangement("br0", "192.168.77.55", GATEWAY)
    assert demanded(HOLDS, BEFORE, after) == (
        *HOLDS[2:],
        AddressThere(address=Cidr("192.168.77.55/24")),
    )


def test_without_addresses_no_way_by_them_is_demanded() -> None:
    assert demanded(HOLDS[:4], BEFORE, arrangement("br0", None, None)) == ()


def test_what_leads_out_by_another_nic_is_demanded_all_the_same() -> None:
    other = (GatewayAnswers(ip=Ip("10.0.0.1")), AddressThere(address=Cidr("10.0.0.2/24")))
    after = arrangement("br0", None, None)
    assert demanded((*HOLDS[:4], *other), BEFORE, after) == other
