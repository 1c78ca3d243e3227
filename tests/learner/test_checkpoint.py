"""Checkpoints: whatever stops the save, the newest can be loaded; whatever is changed is named."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import learner.checkpoint
from learner.bookmark import Bookmark, FreshCursor
from learner.checkpoint import Checkpoint, list_checkpoints, load, load_newest, load_policy, save
from learner.epochs import Epochs, Takeover
from learner.sealed import from_sealed, to_sealed
from system.errors import CheckpointError, DiskFull, Fenced
from system.files import write_synced
from tests.learner.disk_for_tests import no_file_larger_than, small_disk

EVERYTHING = Takeover()
BOOKMARK = Bookmark(
    epoch=1, update=0, version=3, agent_steps=100, elapsed_s=1.5, time_s=2.5, replayed=64, resets=5,
    optimizer_steps=9, torch_generator=bytes(range(50)),
    sampler_generator={"bit_generator": "PCG64", "state": {"state": 1 << 100, "inc": 3}},
    fresh=[FreshCursor(slot=0, copy=1, ordinal=20)],
)  # fmt: skip


def checkpoint(update: int, epoch: int = 1) -> Checkpoint:
    tensors = {"a": torch.full((300,), float(update)), "b": torch.arange(50)}
    return Checkpoint(
        model_digest="model",
        bookmark=replace(BOOKMARK, epoch=epoch, update=update),
        tensors={"weights": tensors, "optimizer": {"rms": tensors["a"]}, "latents": tensors},
    )


def silence(kind: str, text: str) -> None:
    raise AssertionError((kind, text))


def newest(folder: Path) -> int:
    found = load_newest(folder, EVERYTHING, silence)
    assert found is not None
    assert (found.tensors["weights"]["a"] == found.bookmark.update).all()
    return found.bookmark.update


def child(work: Callable[[], None]) -> int:
    """A process of its own that does `work`; returns its id."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def die_after(num_bytes: int) -> Callable[[Path, bytes], None]:
    """A `write_synced` whose process is killed once so many bytes are written."""
    left = [num_bytes]

    def write(path: Path, data: bytes) -> None:
        write_synced(path, data[: left[0]])
        if len(data) > left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= len(data)

    return write


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = checkpoint(7)
    path = save(tmp_path, saved, Epochs(tmp_path), keep=2)
    found = load(path)
    assert found.bookmark == saved.bookmark
    assert (found.model_digest, found.name) == ("model", "00001-000000007")
    assert torch.equal(found.tensors["latents"]["b"], saved.tensors["latents"]["b"])


def test_killed_at_a_random_byte_50_times_the_newest_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, epochs, dice = tmp_path / "checkpoints", Epochs(tmp_path), random.Random(0)
    whole = save(folder, checkpoint(0), epochs, keep=2)
    size, good = sum(path.stat().st_size for path in whole.iterdir()), 0
    for trial in range(1, 51):
        with monkeypatch.context() as patch:
            patch.setattr(learner.checkpoint, "write_synced", die_after(dice.randrange(size - 1)))
            pid = child(lambda trial=trial: save(folder, checkpoint(trial), epochs, keep=2))
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        assert newest(folder) == good
        if trial % 7 == 0:
            save(folder, checkpoint(trial), epochs, keep=2)
            good = trial
    assert not [path for path in folder.iterdir() if path.name.startswith(".")][1:]


def test_killed_at_random_moments_50_times_nothing_that_was_saved_is_lost(tmp_path: Path) -> None:
    folder, epochs, dice = tmp_path / "checkpoints", Epochs(tmp_path), random.Random(1)
    save(folder, checkpoint(0), epochs, keep=1)
    known = 0
    for _ in range(50):
        reader, writer = os.pipe()

        def work(writer: int = writer, first: int = known + 1) -> None:
            for update in range(first, first + 1000):
                save(folder, checkpoint(update), epochs, keep=1)
                os.write(writer, struct.pack("<I", update))

        pid = child(work)
        os.close(writer)
        told = os.read(reader, 4)
        time.sleep(dice.uniform(0.0, 0.02))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        told += os.read(reader, 1 << 16)
        os.close(reader)
        (known,) = struct.unpack("<I", told[-4:])
        assert known <= newest(folder) <= known + 1
        known = newest(folder)
    assert known >= 50


def test_a_byte_flipped_anywhere_is_detected_50_times_and_the_one_before_used(
    tmp_path: Path,
) -> None:
    epochs, dice = Epochs(tmp_path), random.Random(2)
    save(tmp_path, checkpoint(1), epochs, keep=2)
    path = save(tmp_path, checkpoint(2), epochs, keep=2)
    files = sorted(path.iterdir())
    assert len(files) == 5
    for trial in range(50):
        file = files[trial % 5]
        whole = file.read_bytes()
        data = bytearray(whole)
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        file.write_bytes(data)
        with pytest.raises(CheckpointError, match=f"{path}: {file.name} is damaged"):
            load(path)
        events: list[tuple[str, str]] = []
        found = load_newest(tmp_path, EVERYTHING, lambda *event, to=events: to.append(event))
        assert found is not None
        assert found.bookmark.update == 1
        ((kind, text),) = events
        assert kind == "checkpoint_damaged"
        assert f"{path}: {file.name}" in text
        file.write_bytes(whole)
    assert newest(tmp_path) == 2


def reseal(path: Path, part: str, data: bytes) -> None:
    """A part that was changed by somebody who corrects the manifest too."""
    (path / part).write_bytes(data)
    manifest = from_sealed((path / "manifest.json").read_bytes())
    manifest["parts"][part] = hashlib.sha256(data).hexdigest()
    (path / "manifest.json").write_bytes(to_sealed(manifest))


def loaded_or_refused(path: Path) -> Bookmark | None:
    with contextlib.suppress(CheckpointError):
        return load(path).bookmark
    return None


ABSURD: list[Any] = [
    None, True, -1, 1.5, "7", "", [], {}, [[]], [[1, 2]], [[1, 2, -3]], [[1, 2, "x"]], 10**400,
    float("nan"), float("inf"), 1 << 62, "Ã¤", [None] * 3, {"a": 1},
]  # fmt: skip


def test_a_well_sealed_progress_that_cannot_be_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, checkpoint(1), Epochs(tmp_path), keep=2)
    good, dice, refused = BOOKMARK.to_json() | {"update": 1}, random.Random(3), 0
    for _ in range(600):
        data = dict(good)
        key = dice.choice(list(data))
        match dice.randrange(4):
            case 0:
                del data[key]
            case 1:
                data[key + "x"] = 1
            case _:
                data[key] = dice.choice(ABSURD)
        reseal(path, "progress.json", json.dumps(data).encode())
        if (found := loaded_or_refused(path)) is None:
            refused += 1
        else:  # it happened to be possible
            assert found.to_json() == data
    assert refused > 450


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", b"[" * 100_000, b'{"a": ' * 50_000, b"\xff\xfe", b"1" * 10_000]
)
def test_what_is_no_json_object_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = save(tmp_path, checkpoint(1), Epochs(tmp_path), keep=2)
    (path / "manifest.json").write_bytes(raw)
    with pytest.raises(CheckpointError, match="manifest"):
        load(path)
    path = save(tmp_path, checkpoint(2), Epochs(tmp_path), keep=2)
    reseal(path, "progress.json", raw)
    with pytest.raises(CheckpointError, match="progress"):
        load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"format": None}, {"format": 2}, {"model_digest": 7}, {"parts": None}, {"parts": []},
        {"parts": {"../../secret": "0"}}, {"parts": {}}, {"format": [3]},
    ],
)  # fmt: skip
def test_a_well_sealed_manifest_that_cannot_be_is_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    path = save(tmp_path, checkpoint(1), Epochs(tmp_path), keep=2)
    manifest = from_sealed((path / "manifest.json").read_bytes())
    (path / "manifest.json").write_bytes(to_sealed({**manifest, **change}))
    with pytest.raises(CheckpointError, match="manifest"):
        load(path)


def test_tensors_that_are_none_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, checkpoint(1), Epochs(tmp_path), keep=2)
    for raw in (b"", b"\xff" * 64, struct.pack("<Q", 1 << 60) + b"{}"):
        reseal(path, "weights.safetensors", raw)
        with pytest.raises(CheckpointError, match="not safetensors"):
            load(path)


def test_a_checkpoint_of_another_format_is_refused_not_passed_over(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(1), Epochs(tmp_path), keep=2)
    path = save(tmp_path, checkpoint(2), Epochs(tmp_path), keep=2)
    manifest = from_sealed((path / "manifest.json").read_bytes())
    (path / "manifest.json").write_bytes(to_sealed({**manifest, "format": 9}))
    with pytest.raises(CheckpointError, match="has format 9"):
        load_newest(tmp_path, EVERYTHING, silence)


def test_the_newest_are_kept_and_the_same_update_is_never_replaced(tmp_path: Path) -> None:
    epochs = Epochs(tmp_path)
    for update in (1, 2, 2, 2):
        save(tmp_path, checkpoint(update), epochs, keep=3)
    names = [path.name for path in list_checkpoints(tmp_path)]
    assert names == ["00001-000000002", "00001-000000002-02", "00001-000000002-03"]
    save(tmp_path, checkpoint(10), epochs, keep=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["00001-000000010"]


def test_a_folder_that_nobody_finished_removing_is_removed(tmp_path: Path) -> None:
    """A learner was killed while it removed its oldest checkpoint."""
    folder, epochs = tmp_path / "checkpoints", Epochs(tmp_path)
    (save(folder, checkpoint(1), epochs, keep=2) / "manifest.json").unlink()
    for update in (2, 3):
        save(folder, checkpoint(update), epochs, keep=2)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["00001-000000002", "00001-000000003"]


def test_what_a_successor_saves_while_we_remove_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after its rename, and going on when two of its successor's are there."""
    old, new, folder = Epochs(tmp_path), Epochs(tmp_path), tmp_path / "checkpoints"
    old.take(1, "old", silence)

    def listed_late(folder: Path) -> list[Path]:
        if new.epoch == 0:
            new.take(2, "new", silence)
            new.found(checkpoint="00001-000000005", known_steps=0, segments={})
            before = list_checkpoints(folder)
            for update in (6, 7):
                save(folder, checkpoint(update, epoch=2), new, keep=2)
            return before
        return list_checkpoints(folder)

    with monkeypatch.context() as patch:
        patch.setattr(learner.checkpoint, "list_checkpoints", listed_late)
        save(folder, checkpoint(5), old, keep=2)
    assert [path.name for path in list_checkpoints(folder)][-2:] == [
        "00002-000000006", "00002-000000007"
    ]  # fmt: skip


def test_a_fenced_learner_saves_nothing_and_leaves_its_successors_draft(tmp_path: Path) -> None:
    old, new, folder = Epochs(tmp_path), Epochs(tmp_path), tmp_path / "checkpoints"
    old.take(1, "old", silence)
    save(folder, checkpoint(5), old, keep=2)
    new.take(2, "new", silence)
    (folder / ".00002-000000006.draft").mkdir()
    with pytest.raises(Fenced):
        save(folder, checkpoint(9), old, keep=2)
    names = sorted(path.name for path in folder.iterdir())
    assert names == [".00002-000000006.draft", "00001-000000005"]


def test_fenced_in_the_middle_of_a_save_it_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, folder = Epochs(tmp_path), Epochs(tmp_path), tmp_path / "checkpoints"
    old.take(1, "old", silence)
    save(folder, checkpoint(5), old, keep=2)

    def write(path: Path, data: bytes) -> None:
        write_synced(path, data)
        if path.name == "manifest.json":
            new.take(2, "new", silence)
            new.found(checkpoint="00001-000000005", known_steps=0, segments={})

    with monkeypatch.context() as patch:
        patch.setattr(learner.checkpoint, "write_synced", write)
        with pytest.raises(Fenced):
            save(folder, checkpoint(9), old, keep=2)
    assert [path.name for path in folder.iterdir()] == ["00001-000000005"]
    # Stopped between its last look and the rename: it is there, and nobody takes it.
    shutil.copytree(folder / "00001-000000005", folder / "00001-000000009")
    before = Epochs(tmp_path).newest(silence)
    found = load_newest(folder, before, silence)
    assert found is not None
    assert found.name == "00001-000000005"
    save(folder, checkpoint(6, epoch=2), new, keep=2)
    names = [path.name for path in list_checkpoints(folder)]
    assert names == ["00001-000000005", "00002-000000006"]


def test_a_full_disk_leaves_the_checkpoints_before_and_no_draft(tmp_path: Path) -> None:
    epochs = Epochs(tmp_path)
    save(tmp_path, checkpoint(1), epochs, keep=2)
    for limit in (0, 100, 1000, 1500):
        with no_file_larger_than(limit), pytest.raises(DiskFull, match="bytes free"):
            save(tmp_path, checkpoint(2), epochs, keep=2)
        assert [path.name for path in tmp_path.iterdir()] == ["00001-000000001"]
    assert newest(tmp_path) == 1


def saves_until_full(folder: Path, epochs: Epochs) -> None:
    for update in range(2, 99):
        save(folder, checkpoint(update), epochs, keep=99)


def test_a_small_disk_that_is_full_for_real(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", num_bytes=1 << 16) as folder:
        epochs = Epochs(folder)
        save(folder, checkpoint(1), epochs, keep=9)
        with pytest.raises(DiskFull, match=r"No space left on device; \d+ bytes free"):
            saves_until_full(folder, epochs)
        last = newest(folder)
        assert last > 1
        shutil.rmtree(list_checkpoints(folder)[0])
        save(folder, checkpoint(99), epochs, keep=9)
        assert newest(folder) == 99


def test_the_policy_of_a_damaged_newest_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        load_policy(folder)
    save(folder, checkpoint(1), Epochs(tmp_path), keep=2)
    path = save(folder, checkpoint(2), Epochs(tmp_path), keep=2)
    assert load_policy(folder).update == 2
    (path / "weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is damaged"):
        load_policy(folder)
