"""`kvmnet network`: what is said of arguments that are taken otherwise than they are written."""

from __future__ import annotations

import pytest

from kvmnet.cli import main
from kvmnet.cli import network as command
from kvmnet.flow import networks


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--subnet", "10.20.31.5/24"], "an address in the subnet 10.20.31.0/24, which is taken"),
        (["--ipv6", "fd00:0:0:1::9/64"], "an address in the subnet fd00:0:0:1::/64"),
        (["--subnet", "10.20.31.0/24", "--ipv6", "FD00:0:0:1:0::/64"], ""),
    ],
)
def test_an_address_in_a_subnet_is_taken_for_the_subnet_and_that_is_said(
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = []
    monkeypatch.setattr(networks, "creation", asked.append)
    monkeypatch.setattr(command, "_run", lambda *_: 0)
    assert main.main(["network", "create", "x", *words]) == 0
    (request,) = asked
    assert request.subnet in {None, "10.20.31.0/24"} and request.ipv6 in {"off", "fd00:0:0:1::/64"}
    told = capsys.readouterr().err
    assert said in told and bool(said) == bool(told)
