"""Whoever has the highest number writes the folder; what older ones say later does not count."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from learner.epochs import Epochs, Takeover, epoch_of
from learner.sealed import from_sealed, to_sealed
from system.errors import DiskFull, Fenced
from tests.learner.disk_for_tests import no_file_larger_than


def ignore(kind: str, text: str) -> None:
    raise AssertionError((kind, text))


def test_a_newer_epoch_fences_the_older_and_not_itself(tmp_path: Path) -> None:
    old, new = Epochs(tmp_path), Epochs(tmp_path)
    assert old.take(3, "a", ignore) == Takeover()
    old.check()
    assert new.take(5, "b", ignore).who == "a"
    new.check()
    with pytest.raises(Fenced, match="epoch 3: epoch 5 has taken over"):
        old.check()
    with pytest.raises(Fenced):
        old.found(checkpoint="", known_steps=0, segments={})


def test_a_number_is_taken_once_and_a_late_one_is_fenced_at_once(tmp_path: Path) -> None:
    Epochs(tmp_path).take(3, "a", ignore)
    with pytest.raises(Fenced, match="3 is taken"):
        Epochs(tmp_path).take(3, "b", ignore)
    with pytest.raises(Fenced, match="2: epoch 3"):
        Epochs(tmp_path).take(2, "c", ignore)


def test_the_greatest_epoch_is_any_that_the_folder_names(tmp_path: Path) -> None:
    epochs = Epochs(tmp_path)
    assert epochs.greatest() == 0
    for folder, name in (("replay", "00004-00001.segment"), ("checkpoints", "00007-000000012")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).touch()
    assert epochs.greatest() == 7
    epochs.take(9, "a", ignore)
    assert epochs.greatest() == 9
    assert epoch_of(".00009.draft") == epoch_of("notes") == 0


def test_what_was_found_counts_and_nothing_else_of_older_epochs(tmp_path: Path) -> None:
    first, second, third = (Epochs(tmp_path) for _ in range(3))
    first.take(1, "a", ignore)
    second.take(2, "b", ignore)
    second.found(checkpoint="00001-000000005", known_steps=40, segments={"00001-00000.segment": 90})
    assert len(list((tmp_path / "epochs").iterdir())) == 1
    # The third is stopped before it says what it found: what the second found still counts.
    third.take(3, "c", ignore)
    before = Epochs(tmp_path).newest(ignore)
    assert (before.epoch, before.who, before.judged, before.known_steps) == (3, "c", 2, 40)
    assert before.length("00001-00000.segment") == 90
    assert before.length("00001-00001.segment") == 0
    assert before.length("00002-00000.segment") is None
    assert before.counts("00001-000000005")
    assert before.counts("00002-000000001")
    assert not before.counts("00001-000000006")


def test_a_damaged_takeover_is_said_and_limits_nothing(tmp_path: Path) -> None:
    epochs = Epochs(tmp_path)
    epochs.take(1, "a", ignore)
    epochs.found(checkpoint="00000-1", known_steps=3, segments={"a": 1})
    (path,) = (tmp_path / "epochs").iterdir()
    whole, dice = path.read_bytes(), random.Random(0)
    for _ in range(50):
        data = bytearray(whole)
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(data)
        said: list[str] = []
        assert (
            Epochs(tmp_path).newest(lambda kind, text, said=said: said.append(text)) == Takeover()
        )
        assert str(path) in said[0]


@pytest.mark.parametrize(
    "change",
    [{"epoch": "3"}, {"epoch": True}, {"segments": {"a": -1}}, {"segments": {"a": 1.5}}, {"x": 1}],
)
def test_a_takeover_of_other_types_is_refused(change: dict[str, object]) -> None:
    good = json.loads(json.dumps({
        "epoch": 1, "who": "", "judged": 0, "checkpoint": "", "known_steps": 0, "segments": {},
    }))  # fmt: skip
    assert Takeover.read(to_sealed(good)).epoch == 1
    with pytest.raises(ValueError, match="it"):
        Takeover.read(to_sealed({**good, **change}))


@pytest.mark.parametrize("raw", [b"", b"[]", b"[" * 100_000, b"{}", b'{"sha256": null}', b"\xff"])
def test_what_was_never_sealed_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        from_sealed(raw)


def test_no_room_for_an_epoch_takes_nothing(tmp_path: Path) -> None:
    epochs = Epochs(tmp_path)
    with no_file_larger_than(10), pytest.raises(DiskFull):
        epochs.take(1, "a", ignore)
    assert list(epochs.path.iterdir()) == []
    epochs.take(1, "a", ignore)
    with no_file_larger_than(10), pytest.raises(DiskFull):
        epochs.found(checkpoint="", known_steps=0, segments={})
    assert Epochs(tmp_path).newest(ignore).who == "a"
