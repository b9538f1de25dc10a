"""The costs of prompts are measured on prompts of the length that was asked for."""

from benchmarks.prompts import TEMPLATES, measure, table


def test_prompts_of_every_template_are_timed_at_the_length_asked_for() -> None:
    costs = [measure(name, tokens=120, requests=5, catalog_items=30) for name in TEMPLATES]
    assert all(90 < cost.tokens < 150 for cost in costs)
    assert all(0 < middle <= late for cost in costs for middle, late in (cost.first, cost.again, cost.engine))
    assert len(table(costs).splitlines()) == 1 + len(costs)
