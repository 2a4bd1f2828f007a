"""What `kvmnet network show` says of networks of every mode, out of a saved State."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmnet.cli.main import main
from kvmnet.formats import state_json
from kvmnet.model.state import Connection, State, Unread
from kvmnet.model.virt import Network, NetworkConfig


def show(tmp_path: Path, config: NetworkConfig) -> int:
    network = Network(
        connection="qemu:///system", name="n", uuid="u", active=False, persistent=True,
        autostart=False, saved=config,
    )  # fmt: skip
    connection = Connection(uri="qemu:///system", libvirt_version="9.0.0", hypervisor="QEMU")
    state = State(taken_at=0, hostname="h", connections=(connection,), networks=(network,))
    path = tmp_path / "state.json"
    path.write_text(state_json.render(state))
    return main(["network", "show", "n", "--state", str(path)])


def test_spanning_tree_and_dhcp_are_not_claimed_of_somebody_elses_bridge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = NetworkConfig(
        mode="bridge", bridge="ovsbr0", virtualport="openvswitch", portgroups=("vlan-10",)
    )
    assert show(tmp_path, config) == 0
    shown = capsys.readouterr().out
    assert "openvswitch" in shown and "vlan-10" in shown
    assert "STP" not in shown and "DHCP" not in shown and "DNS" not in shown


def test_routes_behind_a_network_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = NetworkConfig(mode="route", bridge="virbr5", routes=("10.7.0.0/16 via 10.1.1.9",))
    assert show(tmp_path, config) == 0
    shown = capsys.readouterr().out
    assert "10.7.0.0/16 via 10.1.1.9" in shown and "STP" in shown


def test_what_was_not_read_is_not_called_absent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gap = Unread(what="libvirt qemu:///system", why="it hangs")
    path = tmp_path / "state.json"
    path.write_text(state_json.render(State(taken_at=0, hostname="h", unread=(gap,))))
    assert main(["network", "show", "default", "--state", str(path)]) == 1
    error = capsys.readouterr().err
    assert "can not be looked up" in error and "there is no network" not in error


def test_an_empty_session_points_to_the_systems_libvirt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Connection(uri="qemu:///session", libvirt_version="9.0.0", hypervisor="QEMU")
    path = tmp_path / "state.json"
    path.write_text(state_json.render(State(taken_at=0, hostname="h", connections=(own,))))
    assert main(["network", "list", "--state", str(path)]) == 0
    assert "--connect qemu:///system" in capsys.readouterr().err
