"""Docker's socket: answers, silence, refusal, absence."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvmnet.adapters import docker
from kvmnet.errors import InvalidInput, TimedOut, Unavailable


@contextmanager
def daemon(path: Path, answer: bytes | None) -> Iterator[None]:
    """A server on that socket that answers once, or (None) never."""
    done = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                if answer is None:
                    done.wait(10)
                else:
                    client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        done.set()
        thread.join(5)


def test_networks(tmp_path: Path) -> None:
    body = b'[{"Name":"bridge","IPAM":{"Config":[{"Subnet":"172.17.0.0/16"}]}}]'
    with daemon(tmp_path / "s", b"HTTP/1.0 200 OK\r\nX: y\r\n\r\n" + body):
        (network,) = docker.read_networks(tmp_path / "s")
    assert (network.name, network.subnets) == ("bridge", ("172.17.0.0/16",))


def test_silence_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "TIMEOUT_S", 0.2)
    began = time.monotonic()
    with daemon(tmp_path / "s", None), pytest.raises(TimedOut):
        docker.read_networks(tmp_path / "s")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 500 No\r\n\r\n[]", b"\xff\xfe"])
def test_refusal(answer: bytes, tmp_path: Path) -> None:
    with daemon(tmp_path / "s", answer), pytest.raises(Unavailable):
        docker.read_networks(tmp_path / "s")


def test_nonsense(tmp_path: Path) -> None:
    with daemon(tmp_path / "s", b"HTTP/1.0 200 OK\r\n\r\n{}"), pytest.raises(InvalidInput):
        docker.read_networks(tmp_path / "s")


def test_not_installed_and_stopped(tmp_path: Path) -> None:
    assert docker.read_networks(tmp_path / "absent") == ()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "stale"))
    with pytest.raises(Unavailable):
        docker.read_networks(tmp_path / "stale")
