"""Places of requests that take many steps: how many there are, and when the next is free."""

from server.messages import PlacesLimit
from server.scheduling.places import PlacesForecast, fits


def test_one_may_always_have_a_place():
    assert fits(PlacesLimit(0, 0), 1, 1000)
    assert not fits(PlacesLimit(0, 0), 2, 0)
    assert fits(PlacesLimit(2, 10), 2, 10)
    assert not fits(PlacesLimit(2, 10), 2, 11)
    assert not fits(PlacesLimit(2, 10), 3, 3)


def test_places_are_taken_as_they_become_free():
    places = PlacesForecast(PlacesLimit(2, 100))
    assert [places.take(steps, 10) for steps in (5.0, 3.0, 4.0, 1.0)] == [0, 0, 3, 5]
    other = places.copy()
    assert other.take(1.0, 95) == 7
    assert places.take(1.0, 10) == 6
