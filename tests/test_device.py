import platform
import resource

import pytest
import torch

from photoz_lit.config import TrainerConfig
from photoz_lit.device import ALONE, autocast, device_of, keep_memory, precision_of, prepare, threads_for
from photoz_lit.errors import ConfigError


def test_hardware_that_is_asked_for_is_used_or_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(TrainerConfig(accelerator="auto")).type == "cpu"
    with pytest.raises(ConfigError, match=r"no GPU is found: type trainer\.accelerator=auto"):
        device_of(TrainerConfig(accelerator="gpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of(TrainerConfig(accelerator="auto")).type == "cuda"
    assert device_of(TrainerConfig(accelerator="cpu")).type == "cpu"


@pytest.mark.parametrize("has_bf16", [True, False])
def test_precision_follows_the_hardware_or_the_settings(
    has_bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    auto = TrainerConfig(accelerator="cpu")
    assert precision_of(auto) == ("bf16-mixed" if has_bf16 else "32-true")
    with autocast(auto):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if has_bf16 else torch.float32)
    assert precision_of(TrainerConfig(accelerator="cpu", precision="32-true")) == "32-true"


def test_threads_are_as_many_as_asked_for() -> None:
    before = torch.get_num_threads()
    try:
        prepare(TrainerConfig(threads=2))
        assert torch.get_num_threads() == 2
        prepare(TrainerConfig(threads=None))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_small_steps_take_one_thread_and_leave_all_to_others() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with threads_for(ALONE - 1):
            assert torch.get_num_threads() == 1
        with threads_for(ALONE):
            assert torch.get_num_threads() == 2
        with pytest.raises(KeyboardInterrupt), threads_for(0):
            raise KeyboardInterrupt
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_memory_that_was_freed_is_not_mapped_afresh() -> None:
    def new_pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(8_000_000)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    keep_memory()
    # Before there is a gap of this size in a heap that other tests have used, it grows.
    assert min(new_pages() for _ in range(10)) < 100  # of 7,813
