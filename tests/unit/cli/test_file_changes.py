import msgspec

from kvmnet.cli.changes import describe
from kvmnet.cli.file_changes import without_secrets
from kvmnet.model.handover import FileState
from kvmnet.model.plan import HandOver, Plan, PlannedStep

PROFILE = "/etc/NetworkManager/system-connections/lan.nmconnection"
OLD = "[connection]\nid=lan\n\n[802-1x]\npassword=hunter2\n"


def plan() -> Plan:
    old = FileState(path=PROFILE, text=OLD, mode=0o600)
    new = FileState(path=PROFILE, text=OLD.replace("id=lan\n", "id=lan\nautoconnect=false\n"))
    copy = FileState(path=PROFILE.replace("lan.nm", ".lan.nm") + ".before-br0", text=OLD)
    made = FileState(path="/etc/netplan/90-br0.yaml", text="a: b\nauth:\n  password: hunter2\n")
    none = FileState(path=made.path, text=None)
    return Plan(
        title="make bridge br0",
        steps=(
            PlannedStep(
                step=HandOver(manager="NetworkManager", files=(copy, new, made)),
                undo=HandOver(manager="NetworkManager", files=(old, none)),
            ),
        ),
    )


def test_a_plan_shows_what_it_changes_in_files() -> None:
    lines = [x.strip() for x in describe(plan())]
    assert "+autoconnect=false" in lines
    assert "--- /dev/null" in lines and "+++ /etc/netplan/90-br0.yaml" in lines and "+a: b" in lines


def test_secrets_and_copies_are_not_shown() -> None:
    text = "\n".join(describe(plan()))
    assert "hunter2" not in text
    assert "password= (not shown)" in text and "password: (not shown)" in text
    assert "+++ /etc/NetworkManager/system-connections/.lan" not in text


def test_a_document_has_no_secrets_and_every_other_line() -> None:
    found = msgspec.json.encode(without_secrets(plan())).decode()
    assert "hunter2" not in found
    assert "autoconnect=false\\n\\n[802-1x]\\npassword= (not shown)\\n" in found
