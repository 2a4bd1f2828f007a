"""An ordinary user of a lab's host, with a libvirtd of their own (qemu:///session)."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from kvmnet.adapters.run import Completed
from kvmnet.lab import topology
from kvmnet.lab.lab import Lab

RUN = f"/run/user/{topology.USER_ID}"


class Session:
    """Runs programs as that user. libvirtd starts by itself when it is asked for, as anywhere."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        owner = f"{topology.USER_ID}:{topology.USER_ID}"
        script = f"mkdir -p {RUN}; chown {owner} {RUN}; chmod 700 {RUN}"  # as a login does
        lab.run("host", ["sh", "-c", script])

    def run(self, *argv: str, stdin: str = "", status: int = 0, timeout: float = 60) -> Completed:
        done = self.lab.run(
            "host", self._as_user(argv), stdin=stdin, timeout=timeout, accept=range(256)
        )
        assert done.status == status, done.stdout + done.stderr
        return done

    def _as_user(self, words: Sequence[str]) -> list[str]:
        user = str(topology.USER_ID)
        return [
            "setpriv", "--reuid", user, "--regid", user, "--clear-groups",
            # The checkout may lie where only its owner can read.
            "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search",
            "env", f"HOME={topology.USER_HOME}", f"USER={topology.USER}", f"XDG_RUNTIME_DIR={RUN}",
            *words,
        ]  # fmt: skip

    def virsh(self, *words: str, stdin: str = "", timeout: float = 60) -> str:
        return self.run("virsh", "-c", "qemu:///session", *words, stdin=stdin,
                        timeout=timeout).stdout  # fmt: skip

    def kvmnet(self, *words: str, stdin: str = "", status: int = 0) -> Completed:
        argv = [sys.executable, "-P", "-m", "kvmnet", *words, "--connect", "qemu:///session"]
        return self.run(*argv, stdin=stdin, status=status, timeout=90)

    def agent(self, guest: str, order: str, **arguments: object) -> Any:
        """What the guest's agent answers; None as long as it does not."""
        text = json.dumps({"execute": order, **({"arguments": arguments} if arguments else {})})
        words = ["virsh", "-c", "qemu:///session", "qemu-agent-command", guest, text]
        done = self.lab.run("host", self._as_user(words), accept=range(256))
        return json.loads(done.stdout)["return"] if done.status == 0 else None

    def wait_address(self, guest: str, nic: str, timeout: float = 120) -> str:
        """The IPv4 address of a NIC in the guest, as soon as it has one."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            links = self.agent(guest, "guest-network-get-interfaces") or ()
            for link in links:
                for entry in link.get("ip-addresses", ()) if link["name"] == nic else ():
                    if entry["ip-address-type"] == "ipv4":
                        return str(entry["ip-address"])
            time.sleep(0.3)
        raise AssertionError(f"{nic} of {guest} has no address")

    def in_guest(self, guest: str, path: str, *argv: str) -> str:
        """What a program prints inside the guest."""
        begun = self.agent(guest, "guest-exec", path=path, arg=list(argv),
                           **{"capture-output": True})  # fmt: skip
        deadline = time.monotonic() + 30
        while True:
            found = self.agent(guest, "guest-exec-status", pid=begun["pid"])
            if found["exited"]:
                out, err = (base64.b64decode(found.get(f"{x}-data", "")) for x in ("out", "err"))
                assert found.get("exitcode") == 0, err.decode()
                return out.decode()
            assert time.monotonic() < deadline, f"{path} does not end"
            time.sleep(0.2)
