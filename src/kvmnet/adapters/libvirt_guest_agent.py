"""Running commands inside a guest through the QEMU guest agent and libvirt.

The agent's protocol: https://qemu.readthedocs.io/en/latest/interop/qemu-ga-ref.html
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from typing import Any

from kvmnet.adapters.libvirt import translate, within
from kvmnet.adapters.run import Completed
from kvmnet.errors import Failed, TimedOut, Unavailable

CALL_TIMEOUT_S = 5
_POLL_S = (0.01, 0.02, 0.04, 0.08, 0.15)


def call(
    domain: Any,
    command: str,
    arguments: dict[str, object] | None = None,
    *,
    wait_s: int = CALL_TIMEOUT_S,
) -> Any:
    """The agent's answer (`return`) to one command, within `wait_s`.

    Raises `Unavailable`, `TimedOut`, `Failed`.
    """
    try:
        import libvirt
        import libvirt_qemu
    except ImportError:
        raise Unavailable(
            "guest agents can not be asked",
            why="libvirt's Python binding is not installed",
            hint="install the package python3-libvirt",
        ) from None
    what = f"the guest agent of {domain.name()} did not do {command}"
    order = json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})})

    def ask() -> str:
        answer: str = libvirt_qemu.qemuAgentCommand(domain, order, wait_s, 0)
        return answer

    try:
        return json.loads(within(wait_s + 5, what, ask))["return"]
    except libvirt.libvirtError as error:
        raise translate(error, what) from None
    except (ValueError, KeyError):
        raise Failed(what, why="its answer can not be understood") from None


def execute(domain: Any, argv: Sequence[str], *, timeout: float, stdin: str = "") -> Completed:
    """Run a program in the guest to its end.

    When `timeout` (seconds) is over it goes on in the guest. Raises `TimedOut`, and what `call`
    raises; a program that is not there is `Failed`.
    """
    deadline = time.monotonic() + timeout
    arguments: dict[str, object] = {
        "path": argv[0],
        "arg": list(argv[1:]),
        "capture-output": True,
    }
    if stdin:
        arguments["input-data"] = base64.b64encode(stdin.encode()).decode()
    number = call(domain, "guest-exec", arguments)["pid"]
    for attempt in range(1_000_000):
        status = call(domain, "guest-exec-status", {"pid": number})
        if status["exited"]:
            code = status["exitcode"] if "exitcode" in status else 128 + status.get("signal", 0)
            return Completed(code, _text(status, "out-data"), _text(status, "err-data"))
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_S[min(attempt, len(_POLL_S) - 1)])
    raise TimedOut(
        f"`{' '.join(argv)}` did not end in the guest {domain.name()}",
        why=f"it was given {timeout:g} seconds",
    )


def _text(status: dict[str, Any], key: str) -> str:
    return base64.b64decode(status.get(key, "")).decode("utf-8", "replace")
