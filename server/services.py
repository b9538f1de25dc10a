"""The services that the routes share, made once per server."""

from dataclasses import dataclass, field
from functools import cached_property

from server.catalogs.deaths import DeathFile
from server.catalogs.filters import NamedFilters
from server.catalogs.guard import CatalogGuard
from server.catalogs.prompts import CatalogPrompts
from server.catalogs.replica import CatalogReplica
from server.catalogs.soundness import Soundness
from server.catalogs.store import CatalogStore
from server.catalogs.switch import CatalogSwitch
from server.control.announcer import Announcer
from server.control.overview import ControlOverview
from server.engine.client import EngineClient
from server.errors import ServerError
from server.histories import HistoryStore
from server.histories.popularity import Popularity
from server.keys.gate import Gate
from server.keys.keyring import Keyring
from server.keys.rates import Rates
from server.metrics.registry import Metrics
from server.metrics.tracing import Tracing
from server.scheduling.drain import Drain
from server.settings import Settings


@dataclass(frozen=True)
class Services:
    """The parts of one server.

    Attributes:
        popularity: of a file of popular items; None for that of the stored histories.
        keys, rates: None for a server without keys.
        operate_port: the port of operations; None if they have none of their own.
    """

    settings: Settings
    catalogs: CatalogStore
    engine: EngineClient
    histories: HistoryStore
    metrics: Metrics
    drain: Drain = field(default_factory=Drain)
    tracing: Tracing = field(default_factory=Tracing)
    popularity: Popularity | None = None
    keys: Keyring | None = None
    rates: Rates | None = None
    operate_port: int | None = None

    @cached_property
    def gate(self) -> Gate:
        """The judge of who may do what."""
        return Gate(self.keys, self.rates, self.metrics.keys, self.operate_port)

    def __post_init__(self) -> None:
        # Nothing can be written before the follower has it.
        self.catalogs.follower.applier = self.replica
        # Asked when Prometheus asks: nobody is told of the many reasons as they come and go.
        self.metrics.ready.set_function(lambda: self.is_ready)

    @cached_property
    def announcer(self) -> Announcer:
        """Announces this server to the others."""
        return Announcer(self.catalogs.follower, lambda: self.catalogs.active.name, self.check_ready)

    @cached_property
    def overview(self) -> ControlOverview:
        """How this server and the others stand, and their state as a file."""
        return ControlOverview(self.catalogs.follower, self.announcer, self.metrics.control)

    @property
    def is_ready(self) -> bool:
        """Whether this server takes requests."""
        try:
            self.check_ready()
        except ServerError:
            return False
        return True

    def check_ready(self) -> None:
        """Check that this server takes requests.

        Raises:
            ServerError: it takes none; the message says why.
        """
        self.drain.check()
        self.catalogs.follower.check()
        self.engine.supervisor.check()
        self.catalogs.check_brought()
        self.prompts.check()
        self.soundness.check()

    @cached_property
    def filters(self) -> NamedFilters:
        """The named filters."""
        return NamedFilters(self.catalogs, self.engine)

    @cached_property
    def guard(self) -> CatalogGuard:
        """The watch over the version that is served."""
        file = DeathFile.of(self.settings.catalogs_directory, self.settings.host, self.settings.port)
        return CatalogGuard(self.catalogs, self.filters, self.engine.supervisor, self.metrics.health, file)

    @cached_property
    def soundness(self) -> Soundness:
        """The watch over the lists that the model makes."""
        return Soundness(self.catalogs, self.engine)

    @cached_property
    def prompts(self) -> CatalogPrompts:
        """The builders of prompts."""
        return CatalogPrompts(self.catalogs, self.engine.supervisor)

    @cached_property
    def switch(self) -> CatalogSwitch:
        """The service that activates versions of the catalog."""
        return CatalogSwitch(self.catalogs, self.filters, self.prompts, self.engine.supervisor, self.metrics.health)

    @cached_property
    def replica(self) -> CatalogReplica:
        """Applies what the control store says to this server."""
        return CatalogReplica(self.catalogs, self.filters, self.switch)
