"""Live figures of the server: latency, rates, acceptance, queue and caches, from its metrics."""

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from server.client import AsyncAtspeedClient, AtspeedError
from server.console.elements import bar, card, table, tag
from server.console.operate.readings import Reading, Readings

LOOK_SECONDS = 3.0
NO_METRICS = "What answers at /metrics is no text of Prometheus."
PERCENTILES = (0.5, 0.9, 0.99)
LATENCY = "Latency of lists"
TILES = ("Lists a second", "p50", "p99", "Running, waiting", "Expected wait", "Prompt tokens cached", "Refused")


class Live:
    """Figures that are looked at now and then.

    Invariant: elements stay from one look to the next, and what they say changes. What is drawn anew loses the focus of the keyboard, and a
    screen reader its place.
    """

    def __init__(self, client: AsyncAtspeedClient) -> None:
        self._client = client
        self._readings = Readings()
        self._levels: list[tuple[int, str]] | None = None
        with card("Now"):
            self._failure = tag("p", "", "alert", role="alert")
            self._shown = tag("div", "", "stack")
        with self._shown:
            with tag("div", "", "tiles"):
                self._tiles = [_tile(name) for name in TILES]
            self._spark = tag("svg", "", "spark", viewBox="0 0 600 48", preserveAspectRatio="none", role="img")
            with self._spark:
                self._line = tag("polyline")
            with tag("div", "", "columns"):
                with tag("div", "", "stack"):
                    tag("h3", LATENCY)
                    names = [f"p{100 * share:g}" for share in PERCENTILES]
                    self._latency = table(LATENCY, ["Share", "", "since the start"], [[name, "", ""] for name in (*names, "lists")])
                with tag("div", "", "stack"):
                    tag("h3", "Lists for which a draft was accepted, by level")
                    self._accepted = tag("div")
        self._failure.set_visibility(False)
        self._shown.set_visibility(False)
        ui.timer(LOOK_SECONDS, self._look)

    async def _look(self) -> None:
        failure = None
        try:
            self._readings.take(Reading.of(await self._client.metrics()))
        except AtspeedError as error:
            failure = str(error)
        except ValueError:
            failure = NO_METRICS
        self._failure.set_text(failure or "")
        self._failure.set_visibility(failure is not None)
        self._shown.set_visibility(failure is None)
        if failure is None:
            self._show()

    def _show(self) -> None:
        now, lately = self._readings.now, self._readings.lately
        recent = lately or now.since(now)
        figures = (
            f"{recent.lists() / max(self._readings.seconds, 1.0):.1f}",
            _ms(recent.percentile(0.5)),
            _ms(recent.percentile(0.99)),
            f"{now.total('atspeed_running_requests'):.0f}, {now.total('atspeed_waiting_requests'):.0f}",
            _ms(now.total("atspeed_expected_wait_seconds")),
            _share(recent.cached_share()),
            f"{recent.total('atspeed_refused_requests_total'):.0f}",
        )
        for tile, figure in zip(self._tiles, figures, strict=True):
            tile.set_text(figure)
        self._show_rates(list(self._readings.rates))
        self._show_latency(recent, now)
        self._show_acceptance(now)

    def _show_rates(self, rates: list[float]) -> None:
        """The rate of lists, as a line from old to new."""
        self._spark.set_visibility(len(rates) > 1)
        if len(rates) < 2:
            return
        most = max(*rates, 1e-9)
        points = [f"{600 * place / (len(rates) - 1):.1f},{46 - 42 * rate / most:.1f}" for place, rate in enumerate(rates)]
        self._line.props["points"] = " ".join(points)
        self._spark.props["aria-label"] = f"Lists a second since this page was opened, at most {most:.1f}"

    def _show_latency(self, recent: Reading, now: Reading) -> None:
        head, *rows = self._latency
        head[1].set_text(f"last {max(self._readings.seconds, 1):.0f} s")
        figures = [(_ms(recent.percentile(share)), _ms(now.percentile(share))) for share in PERCENTILES]
        figures.append((f"{recent.lists():,.0f}", f"{now.lists():,.0f}"))
        for cells, texts in zip(rows, figures, strict=True):
            for cell, text in zip(cells[1:], texts, strict=True):
                cell.set_text(text)

    def _show_acceptance(self, now: Reading) -> None:
        """On which levels drafts were accepted, of all lists since the start; nothing of it takes the focus."""
        shares = now.accepted_by_level()
        levels = [(level, _share(share)) for level, share in shares]
        if levels == self._levels:
            return
        self._levels = levels
        with self._accepted.clear():
            if not shares:
                tag("p", "No draft was accepted yet.", "soft")
                return
            with tag("ul", "", "items bars"):
                for level, share in shares:
                    with tag("li"):
                        tag("span", f"Level {level}", "soft")
                        bar(share, f"level {level}: {_share(share)}")
                        tag("span", _share(share), "number")


def _tile(name: str) -> TextElement:
    """A place for a figure, which is returned, above its name."""
    with tag("div", "", "tile"):
        figure = tag("div", "", "figure")
        tag("div", name, "soft small")
    return figure


def _ms(seconds: float | None) -> str:
    return "none" if seconds is None else f"{1000 * seconds:.0f} ms"


def _share(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.0f} %"
