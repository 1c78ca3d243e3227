"""The rules a Dockerfile linter would hold it to, since none is installed with us."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "ADD": r"^ADD ",
    "a script from the network": r"(curl|wget)\b",
    "a moving tag": r":latest\b",
    "root": r"^USER (root|0)\b",
    "a registry's host": r"https?://",
    "sudo": r"\bsudo\b",
    "an upgrade": r"apt-get (dist-)?upgrade",
    "shell form": r"^(ENTRYPOINT|CMD) [^\[]",
}


@pytest.fixture(scope="module")
def instructions():
    """Word -> rest, in order; continued lines joined, comments left out."""
    text = (ROOT / "deploy/docker/Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(" ", 1)) for line in joined.splitlines() if line.strip()]


def all_of(instructions, word):
    return [rest for name, rest in instructions if name == word]


@pytest.mark.parametrize("rule", FORBIDDEN)
def test_it_has_no(instructions, rule):
    for word, rest in instructions:
        assert not re.search(FORBIDDEN[rule], f"{word} {rest}"), f"{word} {rest}"


def test_every_stage_is_named_and_stands_on_a_pinned_base_or_another_stage(instructions):
    stages = []
    for rest in all_of(instructions, "FROM"):
        base, _, name = rest.partition(" AS ")
        assert name
        assert base in stages or re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base), base
        stages.append(name)
    assert stages[-2:] == ["cpu", "cuda"]


def test_it_runs_as_a_user_by_number_with_a_health_check(instructions):
    assert all_of(instructions, "USER") == ["10001:10001"]
    assert all_of(instructions, "ENTRYPOINT") == ['["dreamfleet"]']
    [health] = all_of(instructions, "HEALTHCHECK")
    assert health.endswith('CMD ["python", "-m", "deploy.health"]')
    # Everything that runs as root comes before it, in the stages below.
    names = [word for word, _ in instructions]
    after = instructions[names.index("USER") :]
    assert all(rest.startswith("[") for word, rest in after if word == "RUN")


def test_packages_of_the_system_leave_nothing_behind(instructions):
    for rest in all_of(instructions, "RUN"):
        if "apt-get install" in rest:
            assert "--no-install-recommends" in rest
            assert "rm -rf /var/lib/apt/lists/*" in rest
        if "pip install" in rest:
            assert rest.count("pip install") == rest.count("--no-cache-dir")
            assert rest.count("pip install") == rest.count("-c constraints.txt")


def test_it_copies_what_exists_and_the_context_holds_no_more(instructions):
    kept = (ROOT / ".dockerignore").read_text().split("\n")
    assert "*" in kept
    for rest in all_of(instructions, "COPY"):
        if not rest.startswith("--from="):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in kept, source


def test_the_targets_that_are_named_elsewhere_exist(instructions):
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    build = compose["services"]["learner"]["build"]
    assert build["dockerfile"] == "deploy/docker/Dockerfile"
    target = re.search(r":-(\w+)}", build["target"]).group(1)
    assert f"run AS {target}" in all_of(instructions, "FROM")
    assert set(build["args"]) <= set(all_of(instructions, "ARG"))
