"""What is read back from files and as JSON: config, registry, metrics, and the learner's folder."""

from __future__ import annotations

import json
import math
import struct
import typing
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from random import Random

import torch
from torch import nn

from actors.config import EnvConfig
from deploy.config import RunConfig
from deploy.files import read_lines
from deploy.presets import laptop
from deploy.run_entry import RunEntry, decode, encode
from deploy.run_folder import ControlFile, RunFolder, RunRecord
from system.config import from_json, to_json
from system.errors import ConfigError, UserError
from system.models.weights import load_bytes, to_bytes
from tests.chunks_for_tests import SPEC
from tests.fuzz.learner_targets import learner_targets
from tests.fuzz.mutate import mutate_bytes, mutate_tree
from tests.fuzz.target import MOST, Target, count, finite, need, text
from tests.fuzz.trees import to_json as write_json
from tests.fuzz.trees import tree_of

CONFIG = laptop(EnvConfig(name="dm_control/cartpole-swingup", args={"a": [1, "x"]}), run="fuzz")


def forged_json(random: Random, tree: object) -> bytes:
    """A tree that was tampered with, and sometimes its text too."""
    data = write_json(mutate_tree(random, tree))
    return data if random.random() < 0.9 else mutate_bytes(random, data)


class FileTarget:
    """Writes the message to one file and has it read."""

    name = ""
    refusals: tuple[type[Exception], ...] = (UserError,)
    weight = 1

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def tree(self, random: Random) -> dict:
        raise NotImplementedError

    def valid(self, random: Random) -> bytes:
        return json.dumps(self.tree(random)).encode()

    def forge(self, random: Random) -> bytes:
        return forged_json(random, tree_of(self.tree(random)))

    def feed(self, data: bytes) -> object:
        self.path.write_bytes(data)
        return self.read()

    def read(self) -> object:
        raise NotImplementedError


class ConfigTarget(FileTarget):
    """`config.json`, with which a run is resumed."""

    name = "config"

    def tree(self, random: Random) -> dict:
        return {
            "format": 1, "run_id": f"fuzz-{random.randrange(16**4):04x}", "dreamfleet": "1",
            "config": to_json(CONFIG), "spec": SPEC.to_json(),
        }  # fmt: skip

    def read(self) -> RunRecord:
        return RunFolder(self.path.parent).record()

    def judge(self, data: bytes, value: RunRecord) -> None:
        judge_record(value)


class ControlFileTarget(FileTarget):
    """`control.json`: where other terminals find the run."""

    name = "control file"

    def tree(self, random: Random) -> dict:
        control = ControlFile(
            runner="ray",
            redis="unix:///x",
            host="host",
            pid=random.randrange(1, 9999),
            started_s=1.5,
        )
        return asdict(control)

    def read(self) -> ControlFile | None:
        return RunFolder(self.path.parent).control()

    def judge(self, data: bytes, value: ControlFile) -> None:
        judge_typed(value)


class RegistryTarget(FileTarget):
    """What the registry says of a run, to somebody who has only the URL."""

    name = "registry"
    refusals = (UserError,)

    def tree(self, random: Random) -> dict:
        entry = RunEntry(
            run_id="fuzz-0123", name="fuzz", created_s=1.7e9, host="host", folder="/x",
            config=to_json(CONFIG), spec=SPEC.to_json(),
            return_mean=random.choice((None, 1.5)), frames=random.randrange(99),
        )  # fmt: skip
        return json.loads(encode(entry))

    def feed(self, data: bytes) -> tuple[RunEntry, RunRecord]:
        entry = decode("fuzz-0123", data)
        if entry is None:
            raise ConfigError("left out")
        return entry, entry.record()

    def judge(self, data: bytes, value: tuple[RunEntry, RunRecord]) -> None:
        entry, record = value
        need(len(data) <= 1 << 20 and entry.run_id == "fuzz-0123", "id or size")
        judge_record(record)
        need(decode("fuzz-0123", encode(entry)) == entry, "does not survive writing")


class LinesTarget(FileTarget):
    """`metrics.jsonl`: lines that cannot be read are left out, nothing is raised."""

    name = "metric lines"
    refusals = ()

    def tree(self, random: Random) -> dict:
        return {
            "time_s": random.random(),
            "frames": random.randrange(99),
            "updates": 1,
            "a/b": None,
        }

    def forge(self, random: Random) -> bytes:
        lines = [forged_json(random, tree_of(self.tree(random))) for _ in range(3)]
        return b"\n".join([self.valid(random), *lines, self.valid(random)])

    def read(self) -> list[dict]:
        return list(read_lines(self.path))

    def judge(self, data: bytes, value: list[dict]) -> None:
        need(all(type(line) is dict for line in value), "lines")
        need(len(value) <= data.count(b"\n") + 1, "more lines than there are")
        need(value[0]["updates"] == 1 and value[-1]["updates"] == 1, "a whole line was left out")


class WeightsTarget(FileTarget):
    """Weights from the channel, into modules that exist."""

    name = "weights"
    refusals = (ValueError,)

    def __init__(self) -> None:
        torch.manual_seed(0)
        self._modules = {"encoder": nn.Linear(3, 4), "policy": nn.LayerNorm(5)}
        self._bytes = to_bytes(self._modules)

    def valid(self, random: Random) -> bytes:
        return self._bytes

    def forge(self, random: Random) -> bytes:
        (length,) = struct.unpack_from("<Q", self._bytes)
        header, body = tree_of(json.loads(self._bytes[8 : 8 + length])), self._bytes[8 + length :]
        kind = random.randrange(5)
        if kind == 0:
            return mutate_bytes(random, self._bytes)
        if kind == 1:  # a number that is not finite
            at = random.randrange(len(body) // 4) * 4
            word = random.choice(
                (b"\0\0\xc0\x7f", b"\0\0\x80\xff", b"\xff\xff\xff\xff", b"\0\0\0\0")
            )
            body = body[:at] + word + body[at + 4 :]
        elif kind == 2:
            entry = random.choice(header)[1]
            change = random.choice(
                ("F16", "F64", "BF16", "F8_E4M3", "I32", "U16", "F4", "C64", "BOOL")
            )
            entry[0 if entry[0][0] == "dtype" else 1][1] = change
        else:
            header = mutate_tree(random, header)
        packed = write_json(header)
        lie = random.choice((0, 0, 0, 0, 1, -1, 2**40))
        return struct.pack("<Q", len(packed) + lie) + packed + body

    def feed(self, data: bytes) -> dict[str, nn.Module]:
        before = to_bytes(self._modules)
        try:
            load_bytes(self._modules, data)
        except ValueError:
            need(to_bytes(self._modules) == before, "a refused load changed the model")
            raise
        return self._modules

    def judge(self, data: bytes, value: dict[str, nn.Module]) -> None:
        (length,) = struct.unpack_from("<Q", data)
        header, body = json.loads(data[8 : 8 + length]), data[8 + length :]  # last key wins
        header.pop("__metadata__", None)
        wanted = {
            f"{m}.{k}": t for m, module in value.items() for k, t in module.state_dict().items()
        }
        need(set(header) == set(wanted), "names")
        for name, facts in header.items():
            start, end = facts["data_offsets"]
            need(facts["dtype"] == "F32" and facts["shape"] == list(wanted[name].shape), "form")
            need(body[start:end] == wanted[name].numpy().tobytes(), "other bytes")
            need(
                all(map(math.isfinite, struct.unpack(f"<{(end - start) // 4}f", body[start:end]))),
                "nan",
            )


def judge_record(record: RunRecord) -> None:
    """A record that was accepted can be built from: every leaf has its type and is finite."""
    judge_typed(record.config)
    need(text(record.run_id) and record.run_id, "run_id")
    need(
        from_json(RunConfig, json.loads(json.dumps(to_json(record.config)))) == record.config,
        "config",
    )
    spec = record.spec
    need(text(spec.name) and type(spec.env_args) is dict and spec.observation, "spec")
    need(spec.action.kind in ("continuous", "discrete") and count(spec.action.size), "action")
    need(spec.action.size and count(spec.action_repeat) and spec.action_repeat, "sizes")
    for key, array in spec.observation.items():
        need(text(key) and array.dtype in ("float32", "uint8"), "observation")
        need(all(count(n) and n for n in array.shape), "shape")


def judge_typed(record: object) -> None:
    """Every field holds what its annotation says, slowly."""
    hints = typing.get_type_hints(type(record))
    for field in fields(record):
        hint, value = hints[field.name], getattr(record, field.name)
        if is_dataclass(value):
            judge_typed(value)
        elif typing.get_origin(hint) is typing.Literal:
            need(value in typing.get_args(hint), field.name)
        elif hint is int:
            need(type(value) is int and abs(value) <= MOST, f"{field.name}={value!r:.40}")
        elif hint is float:
            need(finite(value), f"{field.name}={value!r:.40}")
        else:
            kind = typing.get_origin(hint) or hint
            need(type(value) is kind, f"{field.name} is {type(value).__name__}")


def file_targets(folder: Path) -> list[Target]:
    return [
        ConfigTarget(folder / "run" / "config.json"), WeightsTarget(),
        ControlFileTarget(folder / "run" / "control.json"), RegistryTarget(folder / "registry"),
        LinesTarget(folder / "lines" / "metrics.jsonl"), *learner_targets(folder),
    ]  # fmt: skip
