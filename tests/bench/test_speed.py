"""What is compared is the same thing, and the benchmark says what it measured."""

import pytest
import torch
from api_rate import drawn
from rates import plain

from photoz_lit.models.encoders import build_encoder, encoder_class


@torch.no_grad()
def test_the_plain_port_of_net_p_is_the_same_network() -> None:
    ours = build_encoder("net_p", 5, 32, generator=torch.Generator().manual_seed(1))
    weights = ours.state_dict()
    first = weights["fc.0.weight"]  # ours flattens rows, columns, channels; a plain one channels first
    image = first[:, :-1].reshape(1024, 4, 4, -1).permute(0, 3, 1, 2).flatten(1)
    weights["fc.0.weight"] = torch.cat([image, first[:, -1:]], dim=1)
    port = plain.NetP(5, 32)
    port.load_state_dict(weights)
    x, ebv = torch.randn(3, 5, 32, 32), torch.tensor([0.0, 0.05, 0.3])
    torch.testing.assert_close(port(x, ebv), ours(x, ebv), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_plain_port_of_fast_measures_the_same() -> None:
    x, ebv = torch.from_numpy(drawn(6)), torch.full((6,), 0.05)
    x[0, :, 20:26, 40:46] += 0.5  # a neighbour
    settings = encoder_class("fast").Settings("fast")
    columns = encoder_class("fast").inputs(settings, "images", False)(x, None)
    torch.testing.assert_close(plain.photometry(x), columns, rtol=1e-3, atol=1e-3)
    ours, port = build_encoder("fast", columns.shape[1], 64, settings), plain.Fast(columns.shape[1])
    port.layers.load_state_dict(ours.layers.state_dict())
    torch.testing.assert_close(port(x, ebv), ours(columns, ebv), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("clock", ["wall", "cpu"])
def test_nothing(clock: str) -> None:
    assert clock
