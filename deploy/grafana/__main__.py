"""Writes the dashboards as JSON into the chart, from which Helm and the compose file read them.

Run:  python -m deploy.grafana
"""

import typer
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.checks.tools import DASHBOARDS
from deploy.grafana.health import health
from deploy.grafana.oncall import oncall
from deploy.grafana.speculation import speculation

PAGES = {"oncall": oncall, "speculation": speculation, "health": health}


def rendered() -> dict[str, str]:
    """The JSON of every dashboard by its name."""
    return {name: JSONEncoder(sort_keys=True, indent=2).encode(page().build()) + "\n" for name, page in PAGES.items()}


def main() -> None:
    """Write the dashboards into the chart; takes no options."""
    DASHBOARDS.mkdir(parents=True, exist_ok=True)
    for name, text in rendered().items():
        (DASHBOARDS / f"{name}.json").write_text(text)


if __name__ == "__main__":
    typer.run(main)
