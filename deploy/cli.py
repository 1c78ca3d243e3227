"""The command `dreamfleet`: reads options, calls the command, turns mistakes into one line.

Torch and Ray are imported by the commands that need them, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from deploy.options import PROGRAM, build_parser
from system.errors import DreamfleetError, UserError, nearest

MISTAKE = 2
TROUBLE = 1
INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    # A console script does not search the current folder, where `module:Id` environments lie.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return code
    except UserError as error:
        return _complain(str(error), MISTAKE)
    except DreamfleetError as error:
        return _complain(f"{type(error).__name__}: {error}", TROUBLE)
    except BrokenPipeError:  # `dreamfleet status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return TROUBLE
    except OSError as error:  # a full disk, a folder that may not be written
        return _complain(f"{error.strerror or error}: {error.filename or 'no file'}", TROUBLE)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)


def _run(arguments: list[str]) -> int:
    parser = build_parser()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        raise UserError(f"unknown command {arguments[0]!r}; {nearest(arguments[0], COMMANDS)}")
    options = parser.parse_all(arguments)
    if options.version:
        from deploy.provenance import version

        sys.stdout.write(f"{PROGRAM} {version()}\n")
        return 0
    if options.command is None:
        parser.print_help()
        return 0
    return COMMANDS[options.command](options) or 0


def _complain(text: str, code: int) -> int:
    sys.stderr.write(f"{PROGRAM}: {text}\n")
    return code


def _train(options: argparse.Namespace) -> None:
    from deploy.commands import train

    train(options)


def _launch(options: argparse.Namespace) -> None:
    from deploy.launch import launch

    launch(options)


def _status(options: argparse.Namespace) -> None:
    from deploy.operate import status

    status(options)


def _scale(options: argparse.Namespace) -> None:
    from deploy.operate import scale

    scale(options)


def _slot(options: argparse.Namespace) -> None:
    from deploy.operate import slot

    slot(options)


def _stop(options: argparse.Namespace) -> None:
    from deploy.operate import stop

    stop(options)


def _resume(options: argparse.Namespace) -> None:
    from deploy.commands import resume

    resume(options)


def _evaluate(options: argparse.Namespace) -> None:
    from deploy.commands import evaluate_run

    evaluate_run(options)


def _promote(options: argparse.Namespace) -> None:
    from deploy.promote_command import promote

    promote(options)


def _rollback(options: argparse.Namespace) -> None:
    from deploy.promote_command import rollback

    rollback(options)


def _actor(options: argparse.Namespace) -> None:
    from deploy.robot import act

    act(options)


def _dream(options: argparse.Namespace) -> None:
    from deploy.dream import dream

    dream(options)


def _results(options: argparse.Namespace) -> None:
    from deploy.results.command import results

    results(options)


def _runs(options: argparse.Namespace) -> None:
    from deploy.runs import runs

    runs(options)


def _exporter(options: argparse.Namespace) -> None:
    from deploy.exporter.serve import exporter

    exporter(options)


def _dashboard(options: argparse.Namespace) -> None:
    from deploy.dashboard.serve import dashboard

    dashboard(options)


def _export(options: argparse.Namespace) -> None:
    from deploy.export import export

    export(options)


def _secrets(options: argparse.Namespace) -> None:
    from deploy.secrets import write_secrets

    write_secrets(options)


def _doctor(options: argparse.Namespace) -> int:
    from deploy.doctor import doctor

    return doctor(options)


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "train": _train,
    "launch": _launch,
    "status": _status,
    "scale": _scale,
    "slot": _slot,
    "stop": _stop,
    "resume": _resume,
    "evaluate": _evaluate,
    "promote": _promote,
    "rollback": _rollback,
    "actor": _actor,
    "dream": _dream,
    "results": _results,
    "runs": _runs,
    "export": _export,
    "exporter": _exporter,
    "dashboard": _dashboard,
    "secrets": _secrets,
    "doctor": _doctor,
}

if __name__ == "__main__":
    sys.exit(main())
