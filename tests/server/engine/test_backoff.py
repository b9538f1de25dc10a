"""Pauses before starts: they grow while processes end soon, and begin anew after one that ran for long."""

from server.engine.backoff import HEALTHY_SECONDS, Backoff


def test_pauses_double_up_to_the_longest_while_processes_end_soon():
    backoff = Backoff(first_seconds=1.0, longest_seconds=5.0)
    assert [backoff.after(HEALTHY_SECONDS) for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert backoff.seconds == 5.0


def test_after_a_process_that_ran_for_long_the_first_pause_is_as_short_as_ever():
    backoff = Backoff(first_seconds=1.0, longest_seconds=60.0)
    assert [backoff.after(ran) for ran in (0.0, 0.0, 0.0, HEALTHY_SECONDS + 1, 0.0)] == [1.0, 2.0, 4.0, 1.0, 2.0]
    backoff.reset()
    assert backoff.after(0.0) == 1.0
