"""Where the tools of the checks are: on the path, or where `deploy/checks/tools.sh` has put them."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "atspeed"
DASHBOARDS = CHART / "files" / "dashboards"
RULES = CHART / "files" / "rules.yaml"
_OWN = ROOT / ".deploy"


def find_tool(name: str) -> str | None:
    """The path of a tool, or None where it is not installed."""
    places = [_OWN / "bin" / name, *(_OWN / environment / "bin" / name for environment in ("quick", "tools", "checkov"))]
    return shutil.which(name) or next((str(place) for place in places if place.is_file()), None)


def tool(name: str) -> str:
    """The path of a tool. Raises SystemExit, with a sentence, where it is not installed."""
    if (path := find_tool(name)) is None:
        raise SystemExit(f"{name} is not installed: deploy/checks/tools.sh installs it.")
    return path
