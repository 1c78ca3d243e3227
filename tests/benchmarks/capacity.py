"""Where a fleet saturates: the arithmetic of docs/capacity.md, and its table.

Run: ``python -m tests.benchmarks.capacity``. Pure: constants in, figures out. The constants marked
*measured* come from `redis_ceiling.py` and `chunk_cost.py` on the machine that the document names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """CPU time of one command or one Chunk: a part for each, and a part for its bytes."""

    each_us: float
    per_byte_ns: float

    def of(self, size_bytes: float) -> float:
        """For one of this size [s]."""
        return self.each_us * 1e-6 + self.per_byte_ns * 1e-9 * size_bytes


SERVER = Cost(each_us=4.6, per_byte_ns=1.36)
"""The server, one command in or out. Measured: XADD of 4.5 kB 10.7 us, of 0.79 MB 1075 us."""
CLIENT = Cost(each_us=5.1, per_byte_ns=0.87)
"""A producer, raw XADD. Measured: 9.0 us, 694 us."""
ENCODE = Cost(each_us=13.0, per_byte_ns=0.23)
"""`encode_chunk`. Measured: 14 us, 196 us."""
WRITER_US = 25.0
"""The rest of SlotWriter for one Chunk: offer, spool, credit. Measured without a server [us]."""
INGEST = Cost(each_us=97, per_byte_ns=0.42)
"""Learner: decode, check, insert. Measured: 99 us, 429 us."""
NOTICE_ROW_BYTES = 32.4
"""Measured, with holders of 21 letters [bytes]."""
NOTICE_ROW_US = 2.0
"""An actor decodes one row of a notice. Measured [us]."""
NOTICE_READS_PER_S = 20.0
"""Of one actor with credit; up to 50 while it waits for credit [1/s]."""
NETWORK_BYTES_PER_S = 1.25e9
"""Ten gigabit: assumed, not measured [bytes/s]."""
WEIGHTS_BYTES = {"1m": 1.69e6, "12m": 26.8e6, "200m": 428e6}
"""Acting subset of the `dreamer` preset, from `acting_bytes` [bytes]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """Who writes what."""

    name: str
    actors: int
    step_bytes: float
    """Of one Step in a Chunk [bytes]."""
    copies: int = 1
    steps_per_s: float = 20.0
    """Of one copy [agent steps/s]."""
    chunk_length: int = 64
    """L [agent steps]."""
    chunk_overhead_bytes: float = 2700.0
    """Header and posterior of one Chunk [bytes]."""
    shards: int = 1
    """Data servers; control has its own as soon as there are more than one."""
    size: str = "12m"
    publish_s: float = 2.0
    """Time between broadcasts [s]."""
    nodes: int = 25
    """Machines of the actors; each fetches weights once."""

    @property
    def chunk_bytes(self) -> float:
        """[bytes]."""
        return self.step_bytes * self.chunk_length + self.chunk_overhead_bytes

    @property
    def steps_in_s(self) -> float:
        """[agent steps/s]."""
        return self.actors * self.copies * self.steps_per_s

    @property
    def chunks_in_s(self) -> float:
        """[1/s]."""
        return self.steps_in_s / self.chunk_length


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """How busy each part is; 1 is full."""

    ingest_bytes_per_s: float
    data_server: float
    """Of one core, each shard: in from actors, out to the learner [share]."""
    learner_tail: float
    """Of the learner's one core [share]."""
    notices: float
    """Of one core of the server that holds control [share]."""
    network_in: float
    """Of the learner's machine: all Chunks [share]."""
    broadcast: float
    """Of one core of control's server: every node fetches each broadcast once [share]."""
    broadcast_uncached: float
    """The same with one fetch an actor [share]."""


def load(fleet: Fleet) -> Load:
    """What this fleet asks of every part."""
    ingest = fleet.chunks_in_s * fleet.chunk_bytes
    notice_bytes = NOTICE_ROW_BYTES * fleet.actors
    reads = fleet.actors * NOTICE_READS_PER_S
    weights = SERVER.of(WEIGHTS_BYTES[fleet.size]) / fleet.publish_s
    return Load(
        ingest_bytes_per_s=ingest,
        data_server=2 * fleet.chunks_in_s * SERVER.of(fleet.chunk_bytes) / fleet.shards,
        learner_tail=fleet.chunks_in_s * INGEST.of(fleet.chunk_bytes),
        notices=reads * SERVER.of(notice_bytes),
        network_in=ingest / NETWORK_BYTES_PER_S,
        broadcast=weights * fleet.nodes,
        broadcast_uncached=weights * fleet.actors,
    )


def most_actors(fleet: Fleet, part: str) -> int:
    """How many actors fill this part; at most a million."""
    low, high = 0, 1_000_000
    per_node = fleet.actors / fleet.nodes
    while low < high:
        middle = (low + high + 1) // 2
        trial = replace(fleet, actors=middle, nodes=max(1, round(middle / per_node)))
        low, high = (middle, high) if getattr(load(trial), part) <= 1 else (low, middle - 1)
    return low


def share_of_raw(chunk_bytes: float) -> float:
    """SlotWriter's rate over raw XADD when producers and server share their cores fully."""
    raw = CLIENT.of(chunk_bytes) + SERVER.of(chunk_bytes)
    return raw / (raw + ENCODE.of(chunk_bytes) + WRITER_US * 1e-6)


def inserted_limit(*, updates_per_s: float, batch_steps: int, ratio: float) -> float:
    """Steps a learner wants: it inserts what its replay ratio asks for [agent steps/s]."""
    return updates_per_s * batch_steps / ratio


PROPRIO, CAMERA = 31.0, 64 * 64 * 3 + 11.0
"""A Step of cartpole; of one 64 x 64 camera [bytes]."""
FLEETS = (
    Fleet(name="16 simulated, 2 copies, 50/s", actors=16, step_bytes=PROPRIO, copies=2,
          steps_per_s=50, nodes=1),
    Fleet(name="200 robots, 20/s", actors=200, step_bytes=PROPRIO),
    Fleet(name="200 simulated, 4 copies, 50/s", actors=200, step_bytes=PROPRIO, copies=4,
          steps_per_s=50),
    Fleet(name="200 cameras, 10/s", actors=200, step_bytes=CAMERA, steps_per_s=10),
    Fleet(name="200 cameras, 4 copies, 50/s", actors=200, step_bytes=CAMERA, copies=4,
          steps_per_s=50),
    Fleet(name="the same, 4 shards", actors=200, step_bytes=CAMERA, copies=4, steps_per_s=50,
          shards=4),
    Fleet(name="200 robots, 200m policy", actors=200, step_bytes=PROPRIO, size="200m"),
)  # fmt: skip
PARTS = ("data_server", "learner_tail", "notices", "network_in", "broadcast", "broadcast_uncached")


def table() -> str:
    """The table of docs/capacity.md."""
    heads = ("fleet", "Steps/s", "Chunks/s", "MB/s", *(part.replace("_", " ") for part in PARTS))
    rows = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for fleet in FLEETS:
        found = load(fleet)
        cells = [f"{getattr(found, part):.1%}" for part in PARTS]
        numbers = [f"{fleet.steps_in_s:,.0f}", f"{fleet.chunks_in_s:,.1f}"]
        numbers.append(f"{found.ingest_bytes_per_s / 1e6:,.1f}")
        rows.append("| " + " | ".join([fleet.name, *numbers, *cells]) + " |")
    return "\n".join(rows)


def limits() -> str:
    """The second table: actors that fill each part."""
    rows = ["| fleet | " + " | ".join(part.replace("_", " ") for part in PARTS) + " |"]
    rows.append("|---" * (len(PARTS) + 1) + "|")
    for fleet in FLEETS[1:]:
        cells = [f"{most_actors(fleet, part):,}" for part in PARTS]
        rows.append("| " + " | ".join([fleet.name, *cells]) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(), limits(), sep="\n\n")
