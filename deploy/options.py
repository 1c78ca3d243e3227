"""The options of every command: the promised surface, in one place."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from deploy.parser import Parser

PROGRAM = "dreamfleet"
SIZES = "nano, 1m, 12m, 25m, 50m, 100m, 200m, 400m"
EXAMPLES = """\
examples:
  dreamfleet train --env dm_control/cartpole-swingup
  dreamfleet train --env CartPole-v1 --run balance --runner local
  dreamfleet status --run balance
  dreamfleet scale 4 --run balance --wait
  dreamfleet doctor
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleWish:
    """What `scale` was asked for: a number, or a change of it."""

    actors: int | None = None
    """How many actors; None keeps what was wished last."""
    delta: int = 0
    """How many more; fewer if negative."""


def build_parser() -> Parser:
    """Every command with its options."""
    parser = Parser(
        prog=PROGRAM,
        description="Trains robot policies inside a learned dream.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    _add_training(commands)
    _add_operating(commands)
    _add_measuring(commands)
    _add_actor(commands)
    _add_watching(commands)
    _add_keeping(commands)
    return parser


def _add(commands: argparse._SubParsersAction[Parser], name: str, summary: str) -> Parser:
    added: Parser = commands.add_parser(
        name, help=summary, description=summary, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    return added


def _add_training(commands: argparse._SubParsersAction[Parser]) -> None:
    train = _add(commands, "train", "train a new run: everything on this machine, one command")
    _training_options(train)
    train.add_argument(
        "--print-config", action="store_true", help="print the complete config as JSON and exit"
    )
    train.add_argument("--resume", action="store_true", help="go on with the run if it exists")
    _detach_option(train)
    launch = _add(commands, "launch", "submit `train` to a Ray cluster, stream its log")
    launch.add_argument("--address", required=True, metavar="URL",
                        help="the cluster's dashboard, as http://head:8265")  # fmt: skip
    launch.add_argument("--folder", metavar="PATH",
                        help="where runs/ is on the head (default: as here)")  # fmt: skip
    _training_options(launch)


def _training_options(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "--env",
        metavar="ID",
        help="dm_control/<domain>-<task>, a gymnasium id, or module:Id",
    )
    add("--preset", default="laptop", metavar="NAME", help="laptop (default) or dreamer")
    add("--size", metavar="SIZE", help=f"of the model: {SIZES}")
    add("--run", metavar="NAME", help="name of the run (default: from environment and date)")
    add("--frames", type=_count, metavar="N", help="stop after N simulator steps; 0 never stops")
    add("--actors", type=_count, metavar="N", help="acting processes (default 2; local: 1)")
    add("--copies", type=_positive, metavar="N", help="environment copies per actor")
    add(
        "--action-repeat",
        type=_count,
        metavar="N",
        help="simulator steps per agent step (default 2 for dm_control, else 1)",
    )
    add(
        "--env-arg",
        nargs="+",
        action="extend",
        default=[],
        metavar="key=value",
        help="keyword arguments of the environment",
    )
    add("--seed", type=_count, default=0, metavar="N", help="default 0")
    add(
        "--runner",
        choices=("ray", "local"),
        default="ray",
        help="ray: processes over Redis (default); local: one process, no server",
    )
    add("--redis", metavar="URL", help="a Redis server (default: an embedded one)")
    add("--redis-data", metavar="URL", help="a second server, for the Chunks alone")
    add("--secrets", metavar="DIR", help="passwords, as `dreamfleet secrets` wrote them")
    add("--replay-ratio", type=float, metavar="R", help="replayed steps per inserted step")
    add("--set", nargs="+", action="extend", default=[], dest="settings",
        metavar="section.key=value", help="any setting of --print-config")  # fmt: skip


def _add_operating(commands: argparse._SubParsersAction[Parser]) -> None:
    status = _add(commands, "status", "how a run stands, while it runs and after")
    _found_options(status)
    _json_option(status)
    status.add_argument("--watch", action="store_true", help="redraw every second until Ctrl-C")
    scale = _add(commands, "scale", "change the number of actors of a running run")
    scale.add_argument("actors", type=_scale_wish, metavar="N",
                       help="how many there should be; +N more, -N fewer")  # fmt: skip
    _found_options(scale)
    scale.add_argument("--wait", action="store_true", help="return when they run")
    scale.add_argument("--timeout", type=_seconds, default=180.0, metavar="S",
                       help="longest --wait [s], default 180")  # fmt: skip
    stop = _add(commands, "stop", "drain, checkpoint, exit")
    _found_options(stop)
    resume = _add(commands, "resume", "go on with a run that was stopped")
    _run_option(resume)
    resume.add_argument("--redis", metavar="URL", help="a server that has moved, or of a run "
                        "whose folder is elsewhere (then with --address)")  # fmt: skip
    resume.add_argument("--redis-data", metavar="URL", help="its second server, for the Chunks")
    resume.add_argument("--secrets", metavar="DIR", help="passwords of the server")
    resume.add_argument("--address", metavar="URL", help="of Ray, if its head has the folder")
    resume.add_argument("--frames", type=_count, metavar="N", help="move the frame limit")
    resume.add_argument("--actors", type=_count, metavar="N",
                        help="acting processes from now on (default: as wished last)")  # fmt: skip
    _detach_option(resume)


def _add_measuring(commands: argparse._SubParsersAction[Parser]) -> None:
    evaluate = _add(commands, "evaluate", "measure the newest policy of a run")
    _found_options(evaluate)
    evaluate.add_argument("--episodes", type=_positive, default=10, metavar="N", help="default 10")
    evaluate.add_argument("--seed", type=_count, metavar="N", help="of the environments")
    _json_option(evaluate)
    promote = _add(commands, "promote", "make a policy the safe one, which robots follow")
    _found_options(promote)
    promote.add_argument("--version", type=_count, metavar="V", dest="policy_version",
                         help="of the policy, if still kept (default: the newest)")  # fmt: skip
    _found_options(_add(commands, "rollback", "make safe again what was safe before"))


def _add_actor(commands: argparse._SubParsersAction[Parser]) -> None:
    actor = _add(commands, "actor", "one more actor, a robot for instance, from anywhere; no Ray")
    add = actor.add_argument
    add("--redis", required=True, metavar="URL", help="of the run")
    add("--redis-data", metavar="URL", help="its data server, if that wants a password")
    add("--secrets", metavar="DIR", help="with actor.password, from `dreamfleet secrets`")
    add("--run", metavar="NAME", help="name of the run (default: the only one)")
    add("--slot", type=_count, metavar="N", help="1000 or more (default: the first free one)")
    add("--env", metavar="ID", help="must show what the run's shows (default: the run's)")
    add("--env-arg", nargs="+", action="extend", default=[], metavar="key=value",
        help="keyword arguments of the environment, over the run's")  # fmt: skip
    add("--copies", type=_positive, default=1, metavar="N", help="environment copies, default 1")
    add("--seed", type=_count, metavar="N", help="of environments and actions (default: the run's)")
    add("--follow", choices=("policy", "safe"), default="policy",
        help="policy: the newest one (default); safe: only promoted ones")  # fmt: skip
    add("--spool", default="spool", metavar="DIR", help="for what is not durable, default ./spool")
    add("--spool-bytes", type=_count, default=1024**3, metavar="N", help="its size, default 1 GiB")
    add("--when-full", choices=("pause", "thin"), default="pause",
        help="pause between episodes (default), or thin: drop the oldest unsent")  # fmt: skip


def _add_watching(commands: argparse._SubParsersAction[Parser]) -> None:
    exporter = _add(commands, "exporter", "what the processes of a Redis tell, for Prometheus")
    add = exporter.add_argument
    add("--redis", required=True, metavar="URL", help="of the runs")
    add("--redis-data", metavar="URL", help="their data server, to watch its memory too")
    add("--secrets", metavar="DIR", help="with exporter.password, from `dreamfleet secrets`")
    add("--run", metavar="NAME", help="name of the only run to show (default: all)")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on, default 127.0.0.1")
    add("--port", type=_count, default=9464, metavar="N", help="default 9464")
    add("--token-file", metavar="FILE", help="with the secret that whoever asks must show")


def _add_keeping(commands: argparse._SubParsersAction[Parser]) -> None:
    _runs_options(_add(commands, "runs", "list runs, here or of a Redis; `runs rm` frees one"))
    secrets = _add(commands, "secrets", "passwords and rights by role, for a Redis server")
    secrets.add_argument("folder", metavar="DIR", help="made with mode 0700")
    secrets.add_argument("--force", action="store_true", help="replace the secrets it holds")
    for name, what in (("cert", "certificate"), ("key", "key"), ("ca", "authority")):
        secrets.add_argument(f"--tls-{name}", metavar="FILE", help=f"the server's {what}, PEM")
    doctor = _add(commands, "doctor", "check this machine; each finding names the fix")
    doctor.add_argument("--redis", metavar="URL", help="check this server too")
    doctor.add_argument("--redis-data", metavar="URL", help="and its data server")
    doctor.add_argument("--secrets", metavar="DIR", help="with these passwords")
    _json_option(doctor)


def _detach_option(parser: Parser) -> None:
    parser.add_argument("--detach", action="store_true",
                        help="return once it goes on without this terminal")  # fmt: skip


def _run_option(parser: Parser) -> None:
    parser.add_argument("--run", required=True, metavar="NAME", help="name of the run")


def _found_options(parser: Parser) -> None:
    """For commands that find their run, here or by the URL of its Redis alone."""
    parser.add_argument("--run", metavar="NAME", help="name of the run (default: the only one)")
    _redis_options(parser)


def _redis_options(parser: Parser) -> None:
    add = parser.add_argument
    add("--redis", metavar="URL", help="of a run elsewhere (default: the runs of this folder)")
    add("--secrets", metavar="DIR", help="passwords, as `dreamfleet secrets` wrote them")


def _runs_options(parser: Parser) -> None:
    add = parser.add_argument
    add("action", nargs="?", choices=("rm",), help="rm: free all that a run holds in Redis")
    add("name", nargs="?", metavar="NAME", help="name or id of the run")
    _redis_options(parser)
    add("--redis-data", metavar="URL", help="its data server, if that wants a password")
    add("--folder", action="store_true", help="rm: delete the run's folder too")
    add("--yes", action="store_true", help="rm: do not ask")
    _json_option(parser)


def _json_option(parser: Parser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object and nothing else"
    )


def _scale_wish(text: str) -> ScaleWish:
    if text[:1] not in ("+", "-"):
        return ScaleWish(actors=_count(text))
    return ScaleWish(delta=(1 if text[0] == "+" else -1) * _count(text[1:]))


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be 0 or more seconds")
    return value


def _count(text: str) -> int:
    try:
        value = int(float(text)) if "e" in text.lower() else int(text.replace("_", ""))
        if "e" in text.lower() and float(text) != value:
            raise ValueError
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} must be 0 or more")
    return value


def _positive(text: str) -> int:
    value = _count(text)
    if value == 0:
        raise argparse.ArgumentTypeError("0 must be 1 or more")
    return value
