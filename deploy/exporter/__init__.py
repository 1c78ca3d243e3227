"""`dreamfleet exporter`: what every process of a Redis tells, merged for Prometheus."""
