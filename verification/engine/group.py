"""Engines of several catalogs on one model, as the scheduler sees one: what makes a catalog replaceable while requests run.

Invariant: a request runs from its first step to its last on the engine of the catalog that it names, so it never meets an item of another
one. Each engine makes forwards of its own; two at a time exist only for the few steps that the last requests of an old catalog take.
"""

from typing import Protocol

from verification.request import BeamRequest
from verification.result import StepReport


class StepEngine(Protocol):
    """Something that searches lists step by step: `verification.engine.engine.SpeculativeBeamEngine`, or a group of them."""

    @property
    def total_slots(self) -> int: ...

    @property
    def used_slots(self) -> int: ...

    @property
    def cached_slots(self) -> int: ...

    def fits(self, request: BeamRequest) -> bool: ...

    def has_room(self, request: BeamRequest) -> bool: ...

    def refusal(self, request: BeamRequest) -> str | None: ...

    def tokens_needed(self, request: BeamRequest) -> int: ...

    def next_tokens(self) -> int: ...

    def add(self, request: BeamRequest) -> None: ...

    def cancel(self, request_id: str) -> bool: ...

    def step(self) -> StepReport: ...


class CatalogEngine(StepEngine, Protocol):
    """What a group needs of its engines besides."""

    def drop_draft(self) -> None: ...

    def close(self) -> None: ...


class EngineGroup:
    """Engines by the name of their catalog, all over the same slots; at least one."""

    def __init__(self, catalog: str, engine: CatalogEngine) -> None:
        self._engines = {catalog: engine}

    def put(self, catalog: str, engine: CatalogEngine) -> None:
        """Takes requests for another catalog from now on; `engine` must be a successor of one that is here."""
        self._engines[catalog] = engine

    def drop(self, catalog: str) -> None:
        """Forgets a catalog that no request names any more."""
        del self._engines[catalog]

    @property
    def total_slots(self) -> int:
        """Key/value slots of the model."""
        return self._any.total_slots

    @property
    def used_slots(self) -> int:
        """Key/value slots that running requests own, whatever their catalog."""
        return self._any.used_slots

    @property
    def cached_slots(self) -> int:
        """Key/value slots that hold prompts of earlier requests."""
        return self._any.cached_slots

    def fits(self, request: BeamRequest) -> bool:
        """Whether the request could run on an idle engine at all."""
        return self._of(request).fits(request)

    def has_room(self, request: BeamRequest) -> bool:
        """Whether enough slots are free to run the request to its end now."""
        return self._of(request).has_room(request)

    def refusal(self, request: BeamRequest) -> str | None:
        """Why the plan can't serve the request, as a sentence; None if it can."""
        return self._of(request).refusal(request)

    def tokens_needed(self, request: BeamRequest) -> int:
        """Tokens that a request adds to its first forward, drafts aside."""
        return self._of(request).tokens_needed(request)

    def next_tokens(self) -> int:
        """Tokens that the running requests put into the next step, drafts aside."""
        return sum(engine.next_tokens() for engine in self._engines.values())

    def add(self, request: BeamRequest) -> None:
        """Starts a request; see `SpeculativeBeamEngine.add`."""
        self._of(request).add(request)

    def cancel(self, request_id: str) -> bool:
        """Ends a request without a result and frees its slots; false if no such request runs."""
        return any(engine.cancel(request_id) for engine in self._engines.values())

    def step(self) -> StepReport:
        """Advances every running request, catalog by catalog."""
        reports = []
        for engine in self._engines.values():
            reports.append(report := engine.step())
            if report.draft_failed:
                # The engines share the draft model, which is closed now.
                for other in self._engines.values():
                    other.drop_draft()
        if len(reports) == 1:
            return reports[0]
        return StepReport(
            finished=tuple(result for report in reports for result in report.finished),
            tokens=sum(report.tokens for report in reports),
            seconds=sum(report.seconds for report in reports),
            target_seconds=sum(report.target_seconds for report in reports),
            draft_tokens=sum(report.draft_tokens for report in reports),
            draft_forwards=sum(report.draft_forwards for report in reports),
            draft_seconds=sum(report.draft_seconds for report in reports),
            draft_failed=any(report.draft_failed for report in reports),
            accepted=sum(report.accepted for report in reports),
        )

    def close(self) -> None:
        """Frees the models, which all engines share."""
        self._any.close()

    @property
    def _any(self) -> CatalogEngine:
        return next(iter(self._engines.values()))

    def _of(self, request: BeamRequest) -> CatalogEngine:
        return self._engines[request.catalog]
