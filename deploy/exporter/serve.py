"""`dreamfleet exporter`: reads a Redis every second and answers Prometheus over HTTP."""

from __future__ import annotations

import argparse
import sys

from prometheus_client import CollectorRegistry

from deploy.exporter.collector import FleetCollector
from deploy.exporter.http import MetricsServer, read_token
from deploy.exporter.reader import INTERVAL_S, Reader
from deploy.signals import Interrupts
from deploy.target import must_not_refuse, server_urls
from system.clock import SystemClock
from system.redis_client import without_password


def exporter(options: argparse.Namespace) -> None:
    """Serves until it is told to stop; also while Redis is away.

    Raises:
      ConfigError: an address or a token that cannot be used.
      UserError: Redis refuses our password.
    """
    token = read_token(options.token_file) if options.token_file else ""
    urls, clock = server_urls(options, "exporter"), SystemClock()
    must_not_refuse(urls.control)
    reader = Reader(urls, options.run, clock)
    registry = CollectorRegistry()
    registry.register(FleetCollector(lambda: reader.reading, clock))
    server = MetricsServer(registry, host=options.host, port=options.port, token=token)
    trouble = ""
    sys.stderr.write(f"metrics of {without_password(urls.control)} at {server.url}\n")
    with Interrupts(lambda: None) as interrupts:
        while not interrupts.stopping:
            reader.read()
            if reader.reading.trouble != trouble:
                trouble = reader.reading.trouble
                sys.stderr.write(f"{trouble or 'Redis answers again'}\n")
            clock.sleep(INTERVAL_S)
    server.close()
    reader.close()
