"""Which libvirt connections there are, by their sockets."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmnet.adapters.connections import SYSTEM, present_connections, system_is_there


@pytest.mark.parametrize(
    ("socket", "there"), [("virtqemud-sock", True), ("libvirt-sock", True), ("other-sock", False)]
)
def test_the_systems_libvirt_is_there_where_its_socket_is(
    socket: str, there: bool, tmp_path: Path
) -> None:
    assert not system_is_there(tmp_path)
    (tmp_path / "libvirt").mkdir()
    (tmp_path / "libvirt" / socket).touch()
    assert system_is_there(tmp_path) is there
    assert (SYSTEM in present_connections(uid=1000, run=tmp_path, home=tmp_path)) is there
