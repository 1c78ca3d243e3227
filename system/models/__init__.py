"""Forward-only networks: the part of the learner that actors carry too. No loss lives here.

- `numerics`, `layers`, `distributions`: the bricks
- `encoder`, `dynamics`, `heads`: the pieces of the world model and of the behavior
- `world_model`: pieces put together; `agent`: what an actor runs; `weights`: bytes
"""
