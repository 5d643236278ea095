"""Rules of Prometheus, recording and alerting: their sources are the YAML files here, one per group."""
