"""Parts of msgspec are loaded when they are wanted, and are then what they always are."""

import subprocess
import sys

ORDINARY = """
class A(msgspec.Struct):
    x: int

first = msgspec.json.schema(A)
print(first == msgspec.json.schema(A), msgspec.json.schema_components([A])[1] == first["$defs"])
print([x.name for x in msgspec.inspect.type_info(A).fields])
print(msgspec.toml.decode(b"a = 1"))
from msgspec.inspect import StructType
print(isinstance(msgspec.inspect.type_info(A), StructType))
print(hasattr(msgspec.yaml, "decode"), hasattr(msgspec.yaml, "no_such_thing"))
"""


def python(text: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", text], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_commands_do_without_them() -> None:
    said = python(
        "import sys, kvmnet.cli.main, kvmnet.flow.bridges\n"
        "for x in ('inspect', '_json_schema', 'yaml', 'toml'):\n"
        "    print(type(sys.modules['msgspec.' + x]).__name__)"
    )
    assert said == ["_Later"] * 4


def test_all_of_it_is_there_for_whoever_wants_it() -> None:
    with_kvmnet = python("import kvmnet, msgspec" + ORDINARY)
    assert with_kvmnet == python("import msgspec" + ORDINARY)
    assert with_kvmnet == ["True True", "['x']", "{'a': 1}", "True", "True False"]


def test_what_was_loaded_before_is_left_alone() -> None:
    said = python(
        "import sys, msgspec\nbefore = sys.modules['msgspec.inspect']\nimport kvmnet\n"
        "print(sys.modules['msgspec.inspect'] is before)"
    )
    assert said == ["True"]
