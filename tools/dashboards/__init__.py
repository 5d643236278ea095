"""The dashboards of Grafana: tables of panels, what makes JSON of them, a preview, and a check on a live Prometheus."""
