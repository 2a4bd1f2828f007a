"""Check of networks whose guests have addresses of the LAN: does the host still answer for them?"""

from __future__ import annotations

from collections.abc import Iterator

from kvmnet.core.finding import Finding, command
from kvmnet.core.lan_range import is_lan_range
from kvmnet.core.lan_range6 import answered, on_lan, unanswered
from kvmnet.core.lan_settings import unset
from kvmnet.model.state import State


def lan_not_answered(state: State) -> Iterator[Finding]:
    """An active network on a part of its uplink's LAN, and nobody answers there for its guests."""
    for network in state.networks:
        config = network.live
        if not network.active or config is None or not is_lan_range(state, config):
            continue
        nic = config.uplinks[0]
        evidence = [f"{name} = 0" for name in unset(state, config)]
        lost = unanswered(state, config) if on_lan(state, config) else ()
        if lost:
            number = f"{len(lost)} of {len(answered(config))}"
            evidence.append(f"ip -6 neigh show proxy: {number} addresses are missing")
        if evidence:
            yield Finding(
                name="lan-not-answered", severity="problem", subject=f"network {network.name}",
                what=f"the LAN does not reach its guests: this host does not answer for them on "
                f"{nic}",
                breaks="guests with addresses of the LAN send and get no answers",
                evidence=tuple(evidence),
                fix=(command("kvmnet", "network", "start", network.name),),
            )  # fmt: skip
