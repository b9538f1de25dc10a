"""Work in the background that takes as long as its order says."""

import time

import msgspec

from server.catalogs.background import answer_order


class Nap(msgspec.Struct):
    seconds: float


def nap(order: Nap) -> Nap:
    time.sleep(order.seconds)
    return order


if __name__ == "__main__":
    answer_order(Nap, nap)
