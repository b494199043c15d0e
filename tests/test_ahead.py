"""Batches in threads: order, how many at once, and what an early end or an error leaves."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import torch

from photoz_lit.ahead import AHEAD, in_order

PARTS = [slice(i, i + 1) for i in range(40)]


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


@pytest.mark.parametrize(("apart", "at_once", "of_torch"), [(True, 3, 1), (False, 1, 3)])
def test_parts_come_in_order_from_as_many_threads(apart: bool, at_once: int, of_torch: int) -> None:
    running, most, seen = 0, 0, set()
    lock = threading.Lock()

    def compute(part: slice, raw: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            seen.add(torch.get_num_threads())
        time.sleep(0.002 * (part.start % 3))
        with lock:
            running -= 1
        return raw

    made = list(in_order(PARTS, lambda part: 10 * part.start, compute, apart=apart))
    assert made == [10 * part.start for part in PARTS]
    assert most == at_once
    assert seen == {of_torch}


def test_few_are_read_before_they_are_taken() -> None:
    read = []
    with closing(in_order(PARTS, lambda part: read.append(part), lambda *_: None, apart=False)) as made:
        next(made)
        time.sleep(0.1)
        assert len(read) == AHEAD + 1


def test_an_error_of_a_part_is_told_in_its_place_and_ends_the_rest() -> None:
    def compute(part: slice, raw: int) -> int:
        if raw == 3:
            raise ValueError("part 3")
        return raw

    made = in_order(PARTS, lambda part: int(part.start), compute, apart=True)
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="part 3"):
        next(made)


def test_nothing_gives_nothing() -> None:
    assert list(in_order([], lambda part: None, lambda *_: None, apart=True)) == []
