"""One line of `dreamfleet doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What was found, and what to do about it."""

    name: str
    verdict: Literal["ok", "note", "missing"]
    """`missing` keeps dreamfleet from training; `note` takes something away from it."""
    found: str
    fix: str = ""


def missing(name: str, found: str, fix: str) -> Finding:
    """Something that training needs."""
    return Finding(name=name, verdict="missing", found=found, fix=fix)


def healthy(findings: list[Finding]) -> bool:
    """Whether training works here."""
    return all(finding.verdict != "missing" for finding in findings)
