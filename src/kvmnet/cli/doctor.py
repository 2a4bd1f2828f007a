"""Why has my guest no network: what is wrong, what shows it, what mends it.

All parts of the host are looked at, and a stand-in guest tries every network and bridge in use.
Without a target it is about this host; GUEST, network:NAME or bridge:NAME limit it to what that
needs. --fix takes the steps that mend it, as one change that is undone if it does not help, and
that `kvmnet undo` takes back.

Exit status 0: nothing is wrong, notes at most; 1: a problem or a warning is left, or the firewall
or libvirt could not be read, so that it is not known; 4: mending was tried and undone. The probes,
--fix and reading the firewall need root.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvmnet.cli import arguments, changes, output, picture
from kvmnet.core.finding import Finding, some
from kvmnet.core.looking import split
from kvmnet.core.probed import Probed
from kvmnet.core.proof_of_health import unknown
from kvmnet.core.scope import Scope, parse_scope
from kvmnet.errors import InvalidInput

if TYPE_CHECKING:  # the flows are heavy to import, and --help does not need them
    from kvmnet.flow.doctor import Examination
    from kvmnet.model.plan import Plan
    from kvmnet.model.probe import Endpoint

_COLORS = {"problem": "31", "warning": "33", "note": "36"}


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    del common  # there are no sub-commands
    parser.add_argument(
        "target", metavar="TARGET", nargs="?",
        help="a guest's name, network:NAME or bridge:NAME (default: all of this host)",
    )  # fmt: skip
    parser.add_argument(
        "--fix", action="store_true", help="mend what can be mended, then look again"
    )
    parser.add_argument(
        "--no-probes", action="store_true",
        help="send nothing: only look (a provider may mind MAC addresses that it does not know)",
    )  # fmt: skip
    parser.add_argument(
        "--to", metavar="HOST[:PORT]",
        help="what guests should reach, by TCP if a port is given (default: the host's gateway)",
    )  # fmt: skip
    arguments.add_state_option(parser)
    changes.add_change_options(parser)
    parser.set_defaults(
        handler=run,
        takes="it takes one guest's name, network:NAME or bridge:NAME at a time; without, it looks "
        "at all of this host",
    )


def run(args: argparse.Namespace) -> int:
    scope = parse_scope(args.target)
    if args.state is not None:
        if args.fix:
            raise InvalidInput(
                "--fix and --state do not go together",
                why="a saved State is a picture, there is nothing to mend in it",
            )
        if args.to is not None:
            raise InvalidInput("--to and --state do not go together", why="nothing is tried")
        return _look_at_file(args, scope)
    if args.to is not None and args.no_probes:
        raise InvalidInput("--to and --no-probes do not go together",
                           why="probes are what goes there")  # fmt: skip
    if args.dry_run and not args.fix:
        raise InvalidInput("--dry-run goes with --fix", why="without it nothing is changed anyway")
    return _repair(args, scope) if args.fix else _look(args, scope)


def _to(args: argparse.Namespace) -> Endpoint | None:
    from kvmnet.flow.probe_words import parse_endpoint

    return None if args.to is None else parse_endpoint(args.to)


def _look_at_file(args: argparse.Namespace, scope: Scope) -> int:
    from kvmnet.flow.doctor import examine_state
    from kvmnet.flow.observe import ALL_PARTS

    return _show(args, examine_state(picture.read_state(args, ALL_PARTS), scope), None)


def _look(args: argparse.Namespace, scope: Scope) -> int:
    from kvmnet.flow.doctor import examine

    examined = examine(
        scope, getattr(args, "connect", None), probing=not args.no_probes, to=_to(args),
        on_probe=_teller(args),
    )  # fmt: skip
    return _show(args, examined, None)


def _repair(args: argparse.Namespace, scope: Scope) -> int:
    from kvmnet.core.mending_plan import note_of
    from kvmnet.flow.doctor import examine, propose, repair

    uri = getattr(args, "connect", None)
    probing = not args.no_probes
    if args.dry_run:
        examined = examine(scope, uri, probing=probing, to=_to(args), on_probe=_teller(args))
        return _show(args, examined, propose(examined, uri))
    ask = changes.consent(args, "Mend it so?")

    def consent(before: Examination, plan: Plan) -> None:
        if plan.steps and not output.wants_json(args):
            _print(args, before, None)
            print(flush=True)
        ask(plan)

    done = repair(
        scope, uri=uri, said=shlex.join(["kvmnet", *sys.argv[1:]]), consent=consent,
        watcher=changes.TerminalWatcher(args), probing=probing, to=_to(args),
        on_probe=_teller(args),
    )  # fmt: skip
    if done.plan.steps:
        count = sum(bool(x.mend) for x in done.before.findings)
        output.say(args, f"kvmnet: mended {count}, and looked again; kvmnet undo takes it back")
        known = set(map(note_of, done.before.findings))
        for note in done.plan.notes:  # with --yes nobody has seen what will not last
            if note not in known:
                output.say(args, f"note: {note}")
    return _show(args, done.after, done.plan, applied=bool(done.plan.steps))


def _teller(args: argparse.Namespace) -> Callable[[Probed], None]:
    """Progress: one line a probe, on a terminal only."""
    if output.wants_json(args) or not sys.stderr.isatty():
        return lambda probed: None
    return lambda probed: output.say(args, f"kvmnet: tried {_probe_line(probed)}")


def _show(
    args: argparse.Namespace, examined: Examination, plan: Plan | None, *, applied: bool = False
) -> int:
    """Print it; the exit status that says how it is."""
    status = 0 if examined.healthy else 1
    if not output.wants_json(args):
        _print(args, examined, None if applied else plan)
        return status
    from kvmnet.cli.doctor_document import document

    output.print_json(document(examined, plan, applied=applied, from_file=args.state is not None))
    return status


def _print(args: argparse.Namespace, examined: Examination, plan: Plan | None) -> None:
    lines = [line for x in examined.findings for line in [*_finding(args, x), ""]]
    lines += _summary(examined, from_file=args.state is not None)
    if plan is not None:
        lines += ["", *changes.describe(plan)]
    print("\n".join(lines))


def _finding(args: argparse.Namespace, finding: Finding) -> list[str]:
    word: str = finding.severity
    if output.use_color(args):
        word = f"\033[{_COLORS[finding.severity]};1m{word}\033[0m"
    lines = [f"{word} {output.safe(f'{finding.name}, {finding.subject}')}"]
    more = [finding.what]
    more += [f"breaks: {finding.breaks}"] if finding.breaks else []
    more += [f"because: {x}" for x in finding.evidence]
    mends, looks = split(finding.fix)
    more += [f"look: {x}" for x in looks]
    more += [f"fix: {x}" for x in mends]
    more += [f"lasts: {finding.lasts}"] if finding.lasts else []
    if finding.mend:
        more.append("kvmnet doctor --fix does it")
    elif finding.severity != "note":
        more.append("--fix leaves it to you")
    return lines + [f"  {output.safe(x)}" for x in more]


def _summary(examined: Examination, *, from_file: bool) -> list[str]:
    """What is wrong in one line, with the proof: what was looked at and tried, and what was not."""
    from kvmnet.core.proof_of_health import looked_at, not_looked_at

    lines = [f"{_verdict(examined)}: {looked_at(examined.state, examined.checks)}; "
             f"{_probes(examined, from_file=from_file)}"]  # fmt: skip
    lines += [f"not tried: {x.place}: {x.skipped}" for x in examined.probes if x.skipped]
    lines += [f"not looked at: {x}" for x in not_looked_at(examined.state)]
    return [output.safe(x) for x in lines]


def _verdict(examined: Examination) -> str:
    counts = [
        f"{count} {word}{'s' if count > 1 else ''}"
        for word in _COLORS
        if (count := sum(x.severity == word for x in examined.findings))
    ]
    where = str(examined.scope) if examined.scope.name else examined.state.hostname
    notes = f" ({', '.join(counts)})" if counts else ""
    if examined.healthy is None:
        return f"{where}: nothing wrong was found, but {some(unknown(examined.state))} could not " \
               f"be read: whether all is well is not known{notes}"  # fmt: skip
    if examined.healthy:
        seen = "" if examined.complete else ", as far as could be seen"
        return f"{where}: nothing is wrong{seen}{notes}"
    mended = sum(bool(x.mend) for x in examined.findings)
    cure = f", --fix can mend {mended}" if mended else ""
    return f"{where}: {', '.join(counts)}{cure}"


def _probes(examined: Examination, *, from_file: bool) -> str:
    if from_file:
        return "a saved State: nothing was tried"
    probes = examined.probes
    done = [_probe_line(x) for x in probes if x.report is not None]
    if not probes:
        return "no place was tried"
    if not done:
        return "nothing was tried"
    return f"{len(done)} probe{'s' if len(done) > 1 else ''}: {', '.join(done)}"


def _probe_line(probed: Probed) -> str:
    """`network:default ok (0.4 s)`."""
    if probed.report is None:
        return f"{probed.place} not: {probed.skipped}"
    failed = next((x.name for x in probed.report.steps if x.verdict == "failed"), None)
    how = "ok" if failed is None else f"fails at {failed}"
    what = f"guest:{probed.place.guest} on {probed.place}" if probed.place.guest else probed.place
    return f"{what} {how} ({probed.report.ms / 1000:.1f} s)"
