"""The options of every command: the promised surface, in one place."""

from __future__ import annotations

import argparse
from typing import get_args

from deploy.option_types import count, positive, scale_wish, seconds
from deploy.parser import Parser
from deploy.results.options import add_results, add_seeds
from system.control.protocol import SlotAction

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
    _add_dashboard(commands)
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
    add_seeds(train)
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
    add("--frames", type=count, metavar="N", help="stop after N simulator steps; 0 never stops")
    add("--actors", type=count, metavar="N", help="acting processes (default 2; local: 1)")
    add("--copies", type=positive, metavar="N", help="environment copies per actor")
    add(
        "--action-repeat",
        type=count,
        metavar="N",
        help="simulator steps per agent step (dm_control: 4 with laptop, 2 with dreamer; else 1)",
    )
    add(
        "--env-arg",
        nargs="+",
        action="extend",
        default=[],
        metavar="key=value",
        help="keyword arguments of the environment",
    )
    pixels = parser.add_mutually_exclusive_group()
    pixels.add_argument("--pixels", action="store_const", const="only",
                        help="see pictures instead of the state; needs no display")  # fmt: skip
    pixels.add_argument("--pixels-with-state", action="store_const", const="with-state",
                        dest="pixels", help="see pictures and the state")  # fmt: skip
    add("--pixels-size", type=positive, metavar="N", help="height and width, default 64")
    add("--pixels-quality", choices=("fast", "full"),
        help="fast: no shadows, reflections, multisampling (default of laptop)")  # fmt: skip
    add("--seed", type=count, default=0, metavar="N", help="default 0")
    add(
        "--runner",
        choices=("ray", "local"),
        default="ray",
        help="ray: processes over Redis (default); local: one process, no server",
    )
    add("--no-dashboard", action="store_true", help="serve no page (default: on loopback)")
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
    scale.add_argument("actors", type=scale_wish, metavar="N",
                       help="how many there should be; +N more, -N fewer")  # fmt: skip
    _found_options(scale)
    scale.add_argument("--wait", action="store_true", help="return when they run")
    scale.add_argument("--timeout", type=seconds, default=180.0, metavar="S",
                       help="longest --wait [s], default 180")  # fmt: skip
    slot = _add(commands, "slot", "drain, restart or start one actor of a running run")
    slot.add_argument("slot", type=count, metavar="N", help="of the fleet: 0, 1, ...")
    slot.add_argument("action", choices=get_args(SlotAction),
                      help="drain: finish and stay away; restart: finish and begin anew; start: "
                      "end a drain")  # fmt: skip
    _found_options(slot)
    stop = _add(commands, "stop", "drain, checkpoint, exit")
    _found_options(stop)
    resume = _add(commands, "resume", "go on with a run that was stopped")
    _run_option(resume)
    resume.add_argument("--redis", metavar="URL", help="a server that has moved, or of a run "
                        "whose folder is elsewhere (then with --address)")  # fmt: skip
    resume.add_argument("--redis-data", metavar="URL", help="its second server, for the Chunks")
    resume.add_argument("--secrets", metavar="DIR", help="passwords of the server")
    resume.add_argument("--address", metavar="URL", help="of Ray, if its head has the folder")
    resume.add_argument("--frames", type=count, metavar="N", help="move the frame limit")
    resume.add_argument("--actors", type=count, metavar="N",
                        help="acting processes from now on (default: as wished last)")  # fmt: skip
    _detach_option(resume)


def _add_measuring(commands: argparse._SubParsersAction[Parser]) -> None:
    evaluate = _add(commands, "evaluate", "measure the newest policy of a run")
    _found_options(evaluate)
    evaluate.add_argument("--episodes", type=positive, default=10, metavar="N", help="default 10")
    evaluate.add_argument("--seed", type=count, metavar="N", help="of the environments")
    _json_option(evaluate)
    _dream_options(_add(commands, "dream", "pictures of what a checkpoint dreams"))
    add_results(_add(commands, "results", "tables and curves of runs, over their seeds"))
    promote = _add(commands, "promote", "make a policy the safe one, which robots follow")
    _found_options(promote)
    promote.add_argument("--version", type=count, metavar="V", dest="policy_version",
                         help="of the policy, if still kept (default: the newest)")  # fmt: skip
    _found_options(_add(commands, "rollback", "make safe again what was safe before"))


def _dream_options(parser: Parser) -> None:
    add = parser.add_argument
    add("--run", metavar="NAME", help="name of the run (default: the only one)")
    add("--checkpoint", type=count, metavar="UPDATE", help="default: the newest")
    add("--against", type=count, metavar="UPDATE", help="a second checkpoint, in the same picture")
    add("--episode", type=int, default=-1, metavar="I",
        help="of those recorded, oldest 0; default -1: the newest")  # fmt: skip
    add("--step", type=count, metavar="T", help="of the episode, the last one seen")
    add("--horizon", type=positive, metavar="H", help="steps dreamed, default 45 or fewer")
    add("--samples", type=positive, default=16, metavar="K", help="dreams, default 16")
    add("--act", choices=("recorded", "policy"), default="recorded", help="whose actions to dream")
    add("--out", metavar="DIR", help="default: dream-UPDATE in the run's folder")
    add("--video", action="store_true", help="film.mp4 too; needs the extra [video]")


def _add_actor(commands: argparse._SubParsersAction[Parser]) -> None:
    actor = _add(commands, "actor", "one more actor, a robot for instance, from anywhere; no Ray")
    add = actor.add_argument
    add("--redis", required=True, metavar="URL", help="of the run")
    add("--redis-data", metavar="URL", help="its data server, if that wants a password")
    add("--secrets", metavar="DIR", help="with actor.password, from `dreamfleet secrets`")
    add("--run", metavar="NAME", help="name of the run (default: the only one)")
    add("--slot", type=count, metavar="N", help="1000 or more (default: the first free one)")
    add("--env", metavar="ID", help="must show what the run's shows (default: the run's)")
    add("--env-arg", nargs="+", action="extend", default=[], metavar="key=value",
        help="keyword arguments of the environment, over the run's")  # fmt: skip
    add("--copies", type=positive, default=1, metavar="N", help="environment copies, default 1")
    add("--seed", type=count, metavar="N", help="of environments and actions (default: the run's)")
    add("--follow", choices=("policy", "safe"), default="policy",
        help="policy: the newest one (default); safe: only promoted ones")  # fmt: skip
    add("--spool", default="spool", metavar="DIR", help="for what is not durable, default ./spool")
    add("--spool-bytes", type=count, default=1024**3, metavar="N", help="its size, default 1 GiB")
    add("--when-full", choices=("pause", "thin"), default="pause",
        help="pause between episodes (default), or thin: drop the oldest unsent")  # fmt: skip


def _add_watching(commands: argparse._SubParsersAction[Parser]) -> None:
    export = _add(commands, "export", "what a run measured, for other tools")
    _found_options(export)
    export.add_argument("--tensorboard", metavar="DIR", required=True,
                        help="write event files into DIR/NAME")  # fmt: skip
    export.add_argument("--follow", action="store_true", help="go on until the run ends")
    exporter = _add(commands, "exporter", "what the processes of a Redis tell, for Prometheus")
    add = exporter.add_argument
    add("--redis", required=True, metavar="URL", help="of the runs")
    add("--redis-data", metavar="URL", help="their data server, to watch its memory too")
    add("--secrets", metavar="DIR", help="with exporter.password, from `dreamfleet secrets`")
    add("--run", metavar="NAME", help="name of the only run to show (default: all)")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on, default 127.0.0.1")
    add("--port", type=count, default=9464, metavar="N", help="default 9464")
    add("--token-file", metavar="FILE", help="with the secret that whoever asks must show")


def _add_dashboard(commands: argparse._SubParsersAction[Parser]) -> None:
    page = _add(commands, "dashboard", "the page: runs of this folder, or of a Redis, in a browser")
    _found_options(page)
    add = page.add_argument
    add("--redis-data", metavar="URL", help="their data server, if it is another")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on, default 127.0.0.1")
    add("--port", type=count, metavar="N", help="default: the first free one from 8700 on")
    add("--token-file", metavar="FILE", help="with the secret of its URL (default: a new one)")


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
