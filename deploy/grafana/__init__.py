"""The Grafana dashboards as code: `python -m deploy.grafana` writes the JSON for the chart and the compose file."""
