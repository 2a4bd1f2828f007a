"""Records, names and requirements of labs, without starting one."""

import os
from pathlib import Path

import pytest

from kvmnet.errors import InvalidInput, NotFound, Unavailable
from kvmnet.lab import record, requirements
from kvmnet.lab.record import Holder, Process, Record


def test_a_process_is_known_by_its_start_time() -> None:
    started = record.start_time(os.getpid())
    assert started is not None
    assert Process(pid=os.getpid(), start=started).alive()
    assert not Process(pid=os.getpid(), start=started - 1).alive()
    assert record.start_time(2**22 + 1) is None


def test_places() -> None:
    known = Record(
        name="x", phase="up", init=Process(pid=2, start=1),
        holders=(Holder(where="host", process=Process(pid=7, start=1)),),
    )  # fmt: skip
    assert known.path("/run/x") == "/proc/7/root/run/x"
    with pytest.raises(NotFound, match="its places are: host"):
        known.holder("moon")


@pytest.mark.parametrize("name", ["default", "a", "_x1", "A" * 40])
def test_good_names(name: str) -> None:
    assert record.parse_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "1x", "a-b", "x" * 41, "a\n", "é"])
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidInput):
        record.parse_name(name)


def test_the_lock_is_exclusive_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RUN_DIR", tmp_path / "labs")
    with record.lock("one", timeout_s=0):
        with pytest.raises(record.Busy, match="busy"), record.lock("one", timeout_s=0.1):
            pytest.fail("two at once")
        with record.lock("two", timeout_s=0):
            assert record.RUN_DIR.is_dir()
    assert not record.RUN_DIR.exists()


def test_everything_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        requirements, "_is_there", lambda what, path: what not in {"virsh", "dnsmasq", "nft"}
    )
    with pytest.raises(Unavailable) as missing:
        requirements.check()
    assert missing.value.why == "missing: nft, dnsmasq, virsh"
    packages = "dnsmasq-base libvirt-clients nftables"
    assert missing.value.hint == f"apt-get install --no-install-recommends {packages}"


def test_every_requirement_names_a_package() -> None:
    for requirement in requirements.requirements():
        assert requirement.package
        assert requirement.what
