"""Makes and deletes `br0` of `eth0` with kvmnet's own parts, inside a namespace; prints JSON.

create | delete     carry the plan out; `left`: what would still have to be done
again               carry the arrangement of `br0` as it is out once more
kill create|delete  for every command: stop after it, then undo; `differences` by command
force               create although the plan would refuse
"""

import json
import subprocess
import sys

from kvmnet.adapters import arrange
from kvmnet.core import bridge_picture, bridge_plan, uplinks
from kvmnet.errors import KvmnetError
from kvmnet.formats.arrange import commands
from kvmnet.formats.arrange_commands import Command
from kvmnet.model.arrangement import Arrangement
from kvmnet.model.desired import BridgeRequest
from kvmnet.model.plan import Arrange

REQUEST = BridgeRequest(name="br0", ports=("eth0",))
PICTURES = (
    "ip -j -d address", "ip -j -d -4 route show table all", "ip -j -d -6 route show table all",
    "ip -j -d -4 rule", "ip -j -d -6 rule", "ip -j neigh show nud permanent",
    "ip -j neigh show proxy", "bridge -j -d link",
)  # fmt: skip
MOVING = frozenset(
    {"valid_life_time", "preferred_life_time", "expires", "ifindex", "gc_timer", "hello_timer",
     "tcn_timer", "topology_change_timer", "operstate", "linkinfo"}
)  # fmt: skip
"""Numbers that go on by themselves, and the index of a bridge that is made again."""


def plan(verb: str) -> bridge_plan.BridgeChange:
    state = arrange.read_kernel()
    if verb == "delete":
        return bridge_plan.plan_delete(state, "br0")
    return bridge_plan.plan_create(state, REQUEST)


def targets(verb: str) -> tuple[Arrangement, Arrangement]:
    change = plan(verb)
    assert change.arrange is not None
    there, back = change.arrange.step, change.arrange.undo
    assert isinstance(there, Arrange) and isinstance(back, Arrange)
    return there.target, back.target


def shown(todo: tuple[Command, ...]) -> list[str]:
    return [str(getattr(x, "text", x)) for x in todo]


def picture() -> dict[str, list[str]]:
    found = {}
    for command in PICTURES:
        text = subprocess.run(command.split(), capture_output=True, check=True).stdout
        items = json.loads(text or b"[]")
        found[command] = sorted(json.dumps(still(x), sort_keys=True) for x in items)
    return found


def still(value: object) -> object:
    if isinstance(value, dict):
        value = {k: still(v) for k, v in value.items() if k not in MOVING}
        # IPv6 next hops are routes of their own to the kernel; their order means nothing.
        return {**value, "nexthops": sorted(map(str, value.get("nexthops", [])))}
    return [still(x) for x in value] if isinstance(value, list) else value


def kill(verb: str) -> dict[str, object]:
    before, differences = picture(), {}
    target, undo = targets(verb)
    count = len(commands(arrange.read_kernel(), target))
    for number in range(count + 1):
        todo = commands(arrange.read_kernel(), target)[:number]
        misses = arrange._run(todo)
        try:
            arrange.carry_out(undo)
        except KvmnetError as error:
            differences[f"{number} {(shown(todo) or ['nothing'])[-1]}"] = str(error)
            break
        after = picture()
        changed = {k: [v, after[k]] for k, v in before.items() if v != after[k]}
        if changed or misses:
            last = shown(todo)[-1] if todo else "nothing"
            differences[f"{number} {last}"] = [changed, [str(x) for x in misses]]
    return {"moments": count, "differences": differences}


def main() -> int:
    verb = sys.argv[1]
    if verb == "kill":
        print(json.dumps(kill(sys.argv[2])))
        return 0
    if verb == "again":
        target = bridge_picture.as_is(arrange.read_kernel(), ("br0", "eth0"))
    elif verb == "force":
        uplinks._check_stacked = lambda *_: None
        target = targets("create")[0]
    else:
        target = targets(verb)[0]
    steps = shown(commands(arrange.read_kernel(), target))
    try:
        arrange.carry_out(target)
    except KvmnetError as error:
        print(error)
        return 3
    left = shown(commands(arrange.read_kernel(), target))
    print(json.dumps({"steps": steps, "left": left}))
    return 0


sys.exit(main())
