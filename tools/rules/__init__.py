"""Recording and alerting rules of Prometheus: the sources are the YAML files here, one per group (see ``source.py``)."""
