"""How people keep what was opened, by where it was opened."""

from __future__ import annotations

from typing import Literal

import pytest

from kvmnet.core.firewall_fix import how_to_keep, own_file
from kvmnet.core.lan_firewall import opening_notes
from kvmnet.model.host import Firewall
from kvmnet.model.opening import Opening
from kvmnet.model.plan import CloseOpening, MakeOpening, PlannedStep
from kvmnet.model.state import State

Backend = Literal["nft", "iptables-nft", "iptables-legacy"]


def host(*front_ends: str) -> State:
    return State(taken_at=0, hostname="h", firewall=Firewall(front_ends=front_ends))


def opening(chain: str, backend: Backend = "iptables-nft", dport: int | None = None) -> Opening:
    return Opening(
        backend=backend, family="ip", table="filter", chain=chain, comment="kvmnet:br0", iif="br0",
        dport=dport, protocol=None if dport is None else "udp",
    )  # fmt: skip


def test_what_was_opened_in_dockers_chain_outlasts_docker_and_no_boot() -> None:
    (note,) = how_to_keep(host("docker"), [opening("DOCKER-USER")])
    assert "last until the next boot" in note and "After=docker.service" in note
    assert note.endswith("iptables -I DOCKER-USER -i br0 -j ACCEPT")
    assert "nftables.conf" not in note


def test_other_openings_beside_dockers_are_told_too() -> None:
    docker, ufw = how_to_keep(host("docker", "ufw"), [opening("DOCKER-USER"), opening("INPUT")])
    assert "After=docker.service" in docker and "DOCKER-USER" not in ufw
    assert "ufw allow in on br0" in ufw


@pytest.mark.parametrize(
    ("backend", "file"),
    [("nft", "/etc/nftables.conf"), ("iptables-nft", "/etc/iptables/rules.v4"),
     ("iptables-legacy", "/etc/iptables/rules.v4")],
)  # fmt: skip
def test_the_file_is_that_of_the_program_that_has_the_rules(backend: Backend, file: str) -> None:
    (note,) = how_to_keep(host(), [opening("FORWARD", backend)])
    assert file in note
    assert own_file([opening("FORWARD", backend)]).startswith(file)


@pytest.mark.parametrize(
    ("front_ends", "chains", "said", "not_said"),
    [
        (("docker",), ("DOCKER-USER",), "After=docker.service", "its own files"),
        (("docker", "ufw"), ("DOCKER-USER", "INPUT"), "its own files (ufw)", "(docker"),
        (("docker",), ("INPUT",), "often /etc/iptables/rules.v4", "docker"),
    ],
)
def test_a_routed_network_is_told_the_same(
    front_ends: tuple[str, ...], chains: tuple[str, ...], said: str, not_said: str
) -> None:
    steps = tuple(
        PlannedStep(step=MakeOpening(opening=x), undo=CloseOpening(opening=x))
        for x in map(opening, chains)
    )
    notes = " ".join(opening_notes(host(*front_ends), steps))
    assert said in notes and not_said not in notes
