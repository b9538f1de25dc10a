"""The Grafana dashboards as code: `python -m deploy.grafana` writes the JSON that the chart and the compose file hand to Grafana."""
