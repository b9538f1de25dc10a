"""Live figures of the server: latency, rates, acceptance, queue and caches, from its metrics."""

from nicegui import ui

from server.client import AsyncAtspeedClient, AtspeedError
from server.console.elements import bar, card, show_error, table, tag
from server.console.operate.readings import Reading, Readings

LOOK_SECONDS = 3.0
NO_METRICS = "What answers at /metrics is no text of Prometheus."
PERCENTILES = (0.5, 0.9, 0.99)


class Live:
    """Figures that are looked at now and then."""

    def __init__(self, client: AsyncAtspeedClient) -> None:
        self._client = client
        self._readings = Readings()
        with card("Now"):
            self._shown = tag("div", "", "stack")
        ui.timer(LOOK_SECONDS, self._look)

    async def _look(self) -> None:
        try:
            self._readings.take(Reading.of(await self._client.metrics()))
        except (AtspeedError, ValueError) as error:
            self._shown.clear()
            with self._shown:
                show_error(str(error) if isinstance(error, AtspeedError) else NO_METRICS)
            return
        self._show()

    def _show(self) -> None:
        now, lately = self._readings.now, self._readings.lately
        recent = lately or now.since(now)
        self._shown.clear()
        with self._shown:
            with tag("div", "", "tiles"):
                _tile("Lists a second", f"{recent.lists() / max(self._readings.seconds, 1.0):.1f}")
                _tile("p50", _ms(recent.percentile(0.5)))
                _tile("p99", _ms(recent.percentile(0.99)))
                _tile("Running, waiting", f"{now.total('atspeed_running_requests'):.0f}, {now.total('atspeed_waiting_requests'):.0f}")
                _tile("Expected wait", _ms(now.total("atspeed_expected_wait_seconds")))
                _tile("Prompt tokens cached", _share(recent.cached_share()))
                _tile("Refused", f"{recent.total('atspeed_refused_requests_total'):.0f}")
            _spark(list(self._readings.rates))
            with tag("div", "", "columns"):
                self._show_latency(recent, now)
                _show_acceptance(now)

    def _show_latency(self, recent: Reading, now: Reading) -> None:
        with tag("div", "", "stack"):
            tag("h3", "Latency of lists")
            rows = [[f"p{100 * share:g}", _ms(recent.percentile(share)), _ms(now.percentile(share))] for share in PERCENTILES]
            lists = ["lists", f"{recent.lists():,.0f}", f"{now.lists():,.0f}"]
            table("Latency of lists", ["Share", f"last {max(self._readings.seconds, 1):.0f} s", "since the start"], [*rows, lists])


def _show_acceptance(now: Reading) -> None:
    """On which levels drafts were accepted, of all lists since the start."""
    with tag("div", "", "stack"):
        tag("h3", "Lists for which a draft was accepted, by level")
        levels = now.accepted_by_level()
        if not levels:
            tag("p", "No draft was accepted yet.", "soft")
        with tag("ul", "", "items bars"):
            for level, share in levels:
                with tag("li"):
                    tag("span", f"Level {level}", "soft")
                    bar(share, f"level {level}: {_share(share)}")
                    tag("span", _share(share), "number")


def _tile(name: str, value: str) -> None:
    with tag("div", "", "tile"):
        tag("div", value, "figure")
        tag("div", name, "soft small")


def _spark(rates: list[float]) -> None:
    """The rate of lists, as a line from old to new."""
    if len(rates) < 2:
        return
    most = max(*rates, 1e-9)
    points = " ".join(f"{600 * place / (len(rates) - 1):.1f},{46 - 42 * rate / most:.1f}" for place, rate in enumerate(rates))
    label = f"Lists a second since this page was opened, at most {most:.1f}"
    with tag("svg", "", "spark", viewBox="0 0 600 48", preserveAspectRatio="none", role="img", aria_label=label):
        tag("polyline", "", points=points)


def _ms(seconds: float | None) -> str:
    return "none" if seconds is None else f"{1000 * seconds:.0f} ms"


def _share(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.0f} %"
