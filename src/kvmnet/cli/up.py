"""Put guests on a NAT network online: one command.

Makes libvirt's network exist (a subnet that overlaps nothing, leases at once), started, and started
with the host; looks for what would keep its guests offline (packet forwarding, the firewall, a
bridge that is gone); and proves the result with a stand-in guest. A definition that exists is
changed only with your consent. Run again it changes nothing and says so.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvmnet.cli import changes, output
from kvmnet.errors import Failed, Refused
from kvmnet.model.values import parse_object_name

if TYPE_CHECKING:  # the flows are heavy to import, and --help does not need them
    from kvmnet.core.up_plan import UpPlan
    from kvmnet.flow.up import UpResult
    from kvmnet.model.probe import ProbeStep


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    del common  # there are no sub-commands
    parser.add_argument(
        "name", metavar="NAME", nargs="?", default="default", help="the network (default)"
    )
    changes.add_change_options(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from kvmnet.flow import up

    name = parse_object_name(args.name, "network")
    uri = getattr(args, "connect", None)
    watcher = changes.TerminalWatcher(args)
    if args.dry_run:
        return _show_dry_run(args, up.propose(name, uri, watcher))
    as_json = output.wants_json(args)
    result = up.bring_up(
        name,
        uri=uri,
        command=shlex.join(["kvmnet", *sys.argv[1:]]),
        consent=_consent(args, name),
        watcher=watcher,
        on_step=(lambda _step: None) if as_json else _step_printer(args),
    )
    if as_json:
        _print_document(result.up, result)
    else:
        print(_sentence(name, result))
        for note in result.up.plan.notes:
            output.say(args, f"note: {note}")
    return 0 if result.report.ok else 1


def _step_printer(args: argparse.Namespace) -> Callable[[ProbeStep], None]:
    """Prints each step; a reader who has seen enough (`| head`) is no reason to undo a change."""
    from kvmnet.cli.probe import printer

    show = printer(args, evidence=False)

    def show_while_read(step: ProbeStep) -> None:
        with contextlib.suppress(BrokenPipeError):
            show(step)

    return show_while_read


def _consent(args: argparse.Namespace, name: str) -> Callable[[UpPlan], None]:
    def ask(up: UpPlan) -> None:
        for finding in up.findings:
            output.say(args, f"kvmnet: {finding.name}: {finding.subject}: {finding.what}")
            for line in finding.evidence:
                output.say(args, f"  seen: {line}")
        if up.blocked:
            raise Failed(
                f"network {name} can not be mended",
                why="; ".join(finding.what for finding in up.blocked),
                hint=f"mend that first: virsh net-edit {name}, or use another: kvmnet up NAME",
            )
        if up.needs_consent:
            _ask_for_mending(args, up)
        elif not up.plan.steps:
            output.say(args, f"network {name} is as it should be: nothing to change")

    return ask


def _ask_for_mending(args: argparse.Namespace, up: UpPlan) -> None:
    try:
        changes.consent(args, "Mend it so?")(up.plan)
    except Refused as refusal:
        raise Refused(
            "nothing was changed", why=refusal.why,
            hint="see what would be done: kvmnet up --dry-run; do it: kvmnet up --yes",
        ) from None  # fmt: skip


def _sentence(name: str, result: UpResult) -> str:
    changed = "" if result.up.plan.steps else " (nothing had to be changed)"
    if result.report.ok:
        return f"guests on network {name} are online{changed}"
    failed = next(step for step in result.report.steps if step.verdict == "failed")
    return f"network {name} works on this host, but not beyond: {failed.name}{changed}"


def _show_dry_run(args: argparse.Namespace, up: UpPlan) -> int:
    if output.wants_json(args):
        _print_document(up, None)
        return 0
    for finding in up.findings:
        print(output.safe(f"{finding.name}: {finding.subject}: {finding.what}"))
    return changes.show_dry_run(args, up.plan)


def _print_document(up: UpPlan, result: UpResult | None) -> None:
    from kvmnet.cli.documents import UpDocument
    from kvmnet.cli.finding_view import finding_views

    output.print_json(
        UpDocument(
            applied=result is not None,
            findings=finding_views(up.findings),
            plan=up.plan,
            probe=None if result is None else result.report,
        )
    )
