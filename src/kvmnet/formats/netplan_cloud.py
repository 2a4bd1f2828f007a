"""cloud-init, where it writes netplan's files: it is told not to undo what was changed."""

from __future__ import annotations

from pathlib import PurePosixPath

from kvmnet.model.handover import FileState
from kvmnet.model.netplan import NetplanView

Changed = tuple[tuple[FileState, ...], tuple[FileState, ...]]
_PATH = "/etc/cloud/cloud.cfg.d/99-kvmnet-disable-network-config.cfg"
_TEXT = """\
# kvmnet changed a file of netplan that cloud-init writes; so it must not write it again.
network: {config: disabled}
"""


def kept_off(view: NetplanView, changed: Changed) -> tuple[Changed, tuple[str, ...]]:
    """The changes and what keeps cloud-init off them, and what people should know.

    It writes its file at a boot with a new instance id, unless it is told not to
    (https://cloudinit.readthedocs.io/en/latest/reference/network-config.html).
    """
    files, before = changed
    written = [x.path for x in files if _is_cloud_inits(x)]
    if not written or view.cloud_init == "absent":
        return changed, ()
    if view.cloud_init == "keeps-off":
        return changed, (f"cloud-init once wrote {written[0]}, and is told not to any more",)
    note = f"cloud-init writes {written[0]}: {_PATH} keeps it from undoing the change"
    new, old = FileState(path=_PATH, text=_TEXT), FileState(path=_PATH, text=None)
    return ((*files, new), (*before, old)), (note,)


def _is_cloud_inits(file: FileState) -> bool:
    head = (file.text or "")[:400].lower()
    name = PurePosixPath(file.path).name
    return name == "50-cloud-init.yaml" or ("cloud-init" in head and head.startswith("#"))
