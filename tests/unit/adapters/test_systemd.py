"""The unit that recovers at boot."""

from __future__ import annotations

from pathlib import Path

from kvmnet.adapters.systemd import recovery_unit

JOURNAL = Path("/var/lib/kvmnet/transactions")


def lines(*argv: str, env: dict[str, str] | None = None) -> list[str]:
    needs = [Path("/var/lib/kvmnet"), Path("/opt/my venv")]
    return recovery_unit(argv, env or {}, needs, JOURNAL).splitlines()


def test_it_comes_before_every_manager_and_after_its_files() -> None:
    text = lines("/usr/bin/python3", "-P")
    (before,) = [x for x in text if x.startswith("Before=network-pre.target")]
    for manager in ("systemd-networkd", "NetworkManager", "networking"):
        assert f"{manager}.service" in before
    assert "DefaultDependencies=no" in text
    assert 'RequiresMountsFor=/var/lib/kvmnet "/opt/my venv"' in text
    assert "Wants=network-pre.target" in text
    assert f"ConditionDirectoryNotEmpty={JOURNAL}" in text


def test_words_that_systemd_would_change_are_quoted() -> None:
    text = lines("/a b/python", "50%", "$HOME", env={"KVMNET_STATE_DIR": "/s t"})
    assert 'ExecStart="/a b/python" 50%% $$HOME' in text
    assert 'Environment="KVMNET_STATE_DIR=/s t"' in text
