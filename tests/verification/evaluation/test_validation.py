"""Validation by lists: what users have met is kept in them or left out, for an epoch's model and for a proxy's."""

import json
from pathlib import Path

import pytest

import verification.evaluation.proxy as proxy
from drafting.alignment.data.loading import load_split
from drafting.alignment.data.splits import SplitRule
from drafting.alignment.settings import TrainingMetrics
from drafting.catalog.catalog import Catalog
from drafting.errors import InteractionError
from tests.models import random_catalog, save_random_model
from verification.evaluation.proxy import ProxySettings, judge_identifiers
from verification.evaluation.validation import K, ListValidation


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return random_catalog(items=K, depth=2, codes=5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users who meet two items in turn: their labels are all in their histories."""
    folder = tmp_path_factory.mktemp("repeats")
    events = [{"user": user, "item": f"item-{(user + time % 2) % K}", "timestamp": time} for user in range(12) for time in range(5)]
    (folder / "interactions.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, catalog: Catalog) -> Path:
    return save_random_model(tmp_path_factory.mktemp("random") / "model", catalog, layers=1)


@pytest.mark.parametrize("keep_seen", [False, True])
def test_lists_hold_what_users_have_met_where_it_is_kept(model: Path, catalog: Catalog, data: Path, keep_seen: bool) -> None:
    """A list of all items holds every label, but none that it leaves out."""
    found = ListValidation(catalog, 7, keep_seen=keep_seen)(model, load_split(data, catalog, SplitRule("leave-one-out")))
    assert (found.users, found.recall) == (7, float(keep_seen))


def test_a_proxy_judges_as_it_is_told(model: Path, catalog: Catalog, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def train(where: Path, items: Catalog, base: str, out: Path, **more: object) -> TrainingMetrics:
        trained.append(where)
        out.symlink_to(model)
        return TrainingMetrics(1.0, None, 1, 1, 1, 1.0, 1.0, 0)

    monkeypatch.setattr(proxy, "train_target", train)
    rule = SplitRule("leave-one-out")
    with pytest.raises(InteractionError, match="12 of 12 validation labels"):
        judge_identifiers(data, catalog, ProxySettings(rule=rule))
    assert not trained
    assert judge_identifiers(data, catalog, ProxySettings(rule=rule, keep_seen=True)).recall == 1.0
