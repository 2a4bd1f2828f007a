"""Which program carries a user's network."""

from __future__ import annotations

import pytest

from kvmnet.core.user_network import note, with_backend
from kvmnet.errors import Refused
from kvmnet.model.target import UserTarget

ANY, PASST, SLIRP = UserTarget(), UserTarget(backend="passt"), UserTarget(backend="slirp")
WHY = "this libvirt takes no passt"


@pytest.mark.parametrize(
    ("asked", "why", "chosen", "told"),
    [
        (ANY, None, PASST, False),
        (ANY, WHY, SLIRP, True),
        (PASST, None, PASST, False),
        (SLIRP, None, SLIRP, False),
        (SLIRP, WHY, SLIRP, False),
    ],
)
def test_passt_where_it_can_be_had(
    asked: UserTarget, why: str | None, chosen: UserTarget, told: bool
) -> None:
    assert with_backend(asked, why) == chosen
    assert (WHY in "".join(note(asked, chosen, why))) == told


def test_passt_that_can_not_be_had_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        with_backend(PASST, WHY)
    assert caught.value.why == WHY and "user:slirp" in caught.value.hint
