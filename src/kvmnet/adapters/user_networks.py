"""Whether a connection's libvirt can put NICs on passt: its capabilities are asked for."""

from __future__ import annotations

import shutil
from urllib.parse import urlsplit

from kvmnet.adapters.libvirt import knows_passt
from kvmnet.adapters.libvirt_guests import with_connection
from kvmnet.adapters.run import environment
from kvmnet.errors import KvmnetError
from kvmnet.formats.domain_caps import net_backends


def why_no_passt(uri: str | None) -> str | None:
    """Why a NIC can not be put on passt there; None: it can, or nobody knows.

    The version of libvirt does not tell: Debian 12 has 9.0 with passt in its schema, and in its
    parser a patch (Disable-passt-support) that refuses it.
    """
    if _takes_passt(uri) is False:
        return "this libvirt takes no passt"
    is_local = uri is None or not urlsplit(uri).netloc
    if is_local and shutil.which("passt", path=environment()["PATH"]) is None:
        return "the program passt is not installed"
    return None


def _takes_passt(uri: str | None) -> bool | None:
    try:
        xml = with_connection(
            uri, "libvirt did not tell what it can",
            lambda x: str(x.getDomainCapabilities(None, None, None, None, 0)),
        )  # fmt: skip
        backends = net_backends(xml)
    except KvmnetError:  # a driver without capabilities
        backends = None
    return knows_passt() if backends is None else "passt" in backends
