"""Lists beside the floors of their forwards: the same tokens, and equal lists."""

import pytest

from benchmarks.systems import forwards
from benchmarks.systems.floors import BARE, PRODUCTS
from benchmarks.systems.forwards import FLOORS, GENERATE, run
from benchmarks.systems.question import Outcome, Question, System, SystemSpec
from benchmarks.systems.shapes import SHAPES, make_catalog


class Here:
    """A system in this process, in place of one of its own."""

    def __init__(self, spec: SystemSpec, make: object) -> None:
        self.name = spec.name
        self._system: System = forwards.make(spec)

    def wait_ready(self) -> None:
        pass

    def close(self) -> None:
        pass

    def search(self, question: Question) -> list[Outcome]:
        outcomes = self._system.search(question)
        if self.name in FLOORS:
            # Twenty items of four tokens, sixteen prefixes of one code, and as many as the beam is wide of two and three.
            assert {outcome.tokens for outcome in outcomes} == {80 + 16 + 2 * 20}
        return outcomes


def test_every_width_has_its_rows_and_lists_are_those_of_generate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwards, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(forwards, "SystemProcess", Here)
    monkeypatch.setattr(forwards, "find_spec", lambda _: None)
    assert make_catalog(SHAPES["tiny"]).trie.level_size(1) == 16
    table = [line.split(" | ") for line in run("tiny", [20], 2, 1, 1).splitlines()[2:]]
    assert [row[1] for row in table] == ["atspeed/transformers", BARE, PRODUCTS, GENERATE]
    assert table[0][6].removesuffix(" |") == "3/3"
    assert [float(row[3]) for row in table][1] == [float(row[4]) for row in table][2] == 1.0
