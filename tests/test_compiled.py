import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from photoz_lit import compiled
from photoz_lit.compiled import faster, for_inference
from photoz_lit.config import TrainerConfig
from photoz_lit.device import autocast
from photoz_lit.models.encoders import build_encoder
from photoz_lit.models.encoders.layers import Encoder

SHAPE = (4, 2, 8, 8)
MANY = 10**9


@pytest.fixture
def encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Encoder:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return build_encoder("net_s1", 2, 8)


def compiler(times_as_fast: float, made: list[bool]) -> Callable[..., Callable[[Tensor, Tensor], Tensor]]:
    """Return what stands for `torch.compile`: so many times as fast by the clock that `timed` sets."""

    def compile_(function: Callable[[Tensor, Tensor], Tensor], **_: object) -> Callable[..., Tensor]:
        made.append(True)

        def call(x: Tensor, ebv: Tensor) -> Tensor:
            clock[0] -= 1 - 1 / times_as_fast
            return function(x, ebv)

        return call

    return compile_


clock = [0.0]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of the encoder takes a second."""
    clock[0] = 0.0
    forward = build_encoder("net_s1", 2, 8).__class__.forward

    def slow(self: Encoder, image: Tensor, ebv: Tensor) -> Tensor:
        clock[0] += 1.0
        return forward(self, image, ebv)

    monkeypatch.setattr("photoz_lit.models.encoders.net_s.NetS1.forward", slow)
    monkeypatch.setattr("photoz_lit.compiled.time.perf_counter", lambda: clock[0])


@pytest.mark.usefixtures("timed")
@pytest.mark.parametrize(
    ("times_as_fast", "calls", "tried", "taken"),
    [
        (2.0, MANY, True, True),
        (0.5, MANY, True, False),
        (1.0, MANY, True, False),
        (2.0, 700, False, False),  # a quarter of 700 s is less than two compilations
        (2.0, 0, False, False),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_the_faster_one_is_taken_and_what_cannot_pay_is_not_tried(
    times_as_fast: float,
    calls: int,
    tried: bool,
    taken: bool,
    training: bool,
    encoder: Encoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[bool] = []
    monkeypatch.setattr(torch, "compile", compiler(times_as_fast, made))
    weights = {key: values.clone() for key, values in encoder.state_dict().items()}
    encoder.train(not training)
    found = faster(encoder, SHAPE, TrainerConfig(accelerator="cpu"), calls=calls, training=training)
    assert (len(made) > 0, found is not None) == (tried, taken)
    assert encoder.training is not training
    assert all(p.grad is None for p in encoder.parameters())
    assert all(torch.equal(values, weights[key]) for key, values in encoder.state_dict().items())


@pytest.mark.usefixtures("timed")
def test_a_trial_is_made_once_and_told(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[bool] = []
    monkeypatch.setattr(torch, "compile", compiler(0.5, made))
    for _ in range(2):
        with caplog.at_level(logging.INFO):
            faster(encoder, SHAPE, TrainerConfig(accelerator="cpu"), calls=MANY, training=True)
    assert len(made) == 1
    assert len([message for message in caplog.messages if message.startswith("a trial: 1 s eager, 2 s")]) == 1
    faster(encoder, (8, *SHAPE[1:]), TrainerConfig(accelerator="cpu"), calls=MANY, training=True)
    assert len(made) == 2  # another shape
    compiled._file().write_text("{")
    faster(encoder, SHAPE, TrainerConfig(accelerator="cpu"), calls=MANY, training=True)
    assert len(made) == 3


@pytest.mark.usefixtures("timed")
def test_where_nothing_compiles_the_encoder_stays_as_it_is(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> Callable[..., Tensor]:
        def call(x: Tensor, ebv: Tensor) -> Tensor:
            raise RuntimeError("no compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with caplog.at_level(logging.INFO):
        found = faster(encoder, SHAPE, TrainerConfig(accelerator="cpu"), calls=MANY, training=False)
    assert found is None
    assert "cannot be compiled here (RuntimeError)" in caplog.text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of the compiler's own modules
def test_what_is_compiled_gives_the_same_and_only_its_own_shape_is(encoder: Encoder) -> None:
    found = faster(encoder.eval(), SHAPE, TrainerConfig(compile=True), calls=1, training=False)
    assert found is not None
    rng = torch.Generator().manual_seed(1)
    for n in (4, 3):
        x, ebv = torch.randn(n, *SHAPE[1:], generator=rng), torch.rand(n, generator=rng)
        with torch.inference_mode():
            torch.testing.assert_close(found(x, ebv), encoder(x, ebv), rtol=1e-5, atol=1e-6)
    assert faster(encoder, SHAPE, TrainerConfig(compile=False), calls=MANY, training=True) is None


@pytest.mark.parametrize("has_bf16", [True, False])
def test_inference_takes_weights_in_the_precision_it_computes_in(
    has_bf16: bool, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    trainer = TrainerConfig(accelerator="cpu")
    found = for_inference(encoder.eval(), SHAPE[1:], trainer, 100)
    rng = torch.Generator().manual_seed(1)
    x, ebv = torch.randn(SHAPE, generator=rng), torch.rand(SHAPE[0], generator=rng)
    with torch.inference_mode(), autocast(trainer):
        assert torch.equal(found(x, ebv), encoder(x, ebv))
    assert (found is encoder) is not has_bf16
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
