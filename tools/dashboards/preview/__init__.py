"""Draws a dashboard from a live Prometheus into a picture. A preview of our JSON: it is not Grafana."""
