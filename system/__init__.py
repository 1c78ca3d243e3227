"""What every process must agree on.

- `types`, `specs`, `errors`, `clock`, `config`: records, contracts, the error tree, time
- `codec`, `keys`: bytes on the wire, names in Redis
- `log`, `channel`, `control`: Chunks in, weights out, who is alive; each in memory and on Redis
- `limiter`: the rule that keeps the replay ratio
- `models`: forward-only networks, the only part that imports torch
"""
