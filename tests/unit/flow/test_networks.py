"""A change is not planned for a host that could not be seen."""

from __future__ import annotations

import pytest

from kvmnet.errors import Unavailable
from kvmnet.flow import networks
from kvmnet.model.plan import PlannedStep
from kvmnet.model.state import State, Unread


class Told:
    """A watcher that only listens."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def began(self, number: int, planned: PlannedStep) -> None: ...

    def done(self, number: int, planned: PlannedStep) -> None: ...

    def undoing(self, planned: PlannedStep) -> None: ...

    def say(self, text: str) -> None:
        self.lines.append(text)


def seen(monkeypatch: pytest.MonkeyPatch, *gaps: str) -> None:
    """Have the host look like one on which that could not be read; it can't be made so at will."""
    state = State(
        taken_at=0, hostname="h", unread=tuple(Unread(what=x, why="it hangs") for x in gaps)
    )
    monkeypatch.setattr(networks, "observe", lambda _uri, _parts: state)
    monkeypatch.setattr(networks.libvirt_networks, "check_writable", lambda _uri: None)


@pytest.mark.parametrize("gap", ["routes", "links and addresses", "libvirt qemu:///system"])
def test_what_a_free_subnet_depends_on_must_have_been_read(
    gap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(monkeypatch, gap)
    with pytest.raises(Unavailable, match=f"{gap} could not be read"):
        networks.look(None, networks.PLANNING_PARTS, Told())


def test_what_matters_less_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, "docker networks")
    watcher = Told()
    networks.look(None, networks.PLANNING_PARTS, watcher)
    assert watcher.lines == ["not looked at: docker networks (it hangs)"]
