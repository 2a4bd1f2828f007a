"""What libvirt says it can do."""

from __future__ import annotations

import pytest

from kvmnet.errors import InvalidInput
from kvmnet.formats.domain_caps import net_backends

NEWER = """<domainCapabilities><devices>
  <disk supported='yes'><enum name='bus'><value>virtio</value></enum></disk>
  <interface supported='yes'><enum name='backendType'>{}</enum></interface>
</devices></domainCapabilities>"""


@pytest.mark.parametrize("backends", [(), ("default",), ("default", "passt")])
def test_the_backends_of_nics(backends: tuple[str, ...]) -> None:
    values = "".join(f"<value>{x}</value>" for x in backends)
    assert net_backends(NEWER.format(values)) == set(backends)


def test_an_older_libvirt_does_not_tell() -> None:
    assert net_backends("<domainCapabilities><devices/></domainCapabilities>") is None


def test_something_else() -> None:
    with pytest.raises(InvalidInput):
        net_backends("<capabilities/>")
