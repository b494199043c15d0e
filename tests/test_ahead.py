"""Batches in threads: order, how many at once, and what an early end or an error leaves."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import torch

from photoz_lit.ahead import AHEAD, in_order, side_by_side

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


def test_items_are_worked_on_side_by_side_with_a_thread_of_torch_each() -> None:
    together = threading.Barrier(3, timeout=10)

    def work(item: int, stop: threading.Event) -> tuple[int, int]:
        if item < 3:
            together.wait()
        return 10 * item, torch.get_num_threads()

    assert side_by_side(work, range(5)) == [(10 * i, 1) for i in range(5)]


def test_who_works_side_by_side_is_told_of_an_error_and_ends() -> None:
    ended = []

    def work(item: int, stop: threading.Event) -> None:
        if item == 0:
            raise ValueError("item 0")
        ended.append((item, stop.wait(10)))

    with pytest.raises(ValueError, match="item 0"):
        side_by_side(work, range(9))
    assert all(told for _, told in ended)
    assert len(ended) < 4  # the others are not begun
