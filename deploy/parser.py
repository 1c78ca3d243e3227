"""Command lines whose mistakes are ConfigErrors that name the nearest match."""

from __future__ import annotations

import argparse
import difflib
from typing import NoReturn

from system.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaints are ConfigErrors with the nearest match."""

    def error(self, message: str) -> NoReturn:
        """Raises instead of exiting."""
        raise ConfigError(f"{message}; see: {self.prog} --help")

    def parse_all(self, arguments: list[str]) -> argparse.Namespace:
        """Parses, refusing what is not known.

        Raises:
          ConfigError: an unknown or malformed option; the nearest known one is named.
        """
        options, unknown = self.parse_known_args(arguments)
        if unknown and options.command is None:
            raise ConfigError(f"unknown option {unknown[0]!r}; see: {self.prog} --help")
        if unknown:
            known = self._known_options(options.command)
            close = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise ConfigError(f"unknown option {unknown[0]!r} of {options.command}; {hint}")
        if options.command in ("train", "launch") and options.env is None:
            raise ConfigError(f"{options.command} needs --env, such as --env CartPole-v1")
        return options

    def _known_options(self, command: str) -> list[str]:
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                chosen = action.choices[command]
                return sorted(name for name in chosen._option_string_actions if name[:2] == "--")
        return []
