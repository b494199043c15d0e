"""The photometry of `fast` against closed forms, and its network."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photoz_lit.data.transforms import N_SYMMETRIES, apply_symmetry
from photoz_lit.models.encoders import build_encoder, encoder_class
from photoz_lit.models.encoders.fast import (
    CHUNK,
    N_APERTURES,
    STEADY,
    AdaptivePhotometry,
    MeasuredInputs,
    median,
    of_3x3,
)
from photoz_lit.models.encoders.settings import PhotometrySettings


def measure(images: Tensor) -> Tensor:
    return MeasuredInputs()(images, torch.zeros(len(images)))


def elliptical_galaxy(
    size: float, axis_ratio: float, angle: float, fluxes: tuple[float, ...], pixels: int = 64
) -> Tensor:
    """Image (1, bands, pixels, pixels), nanomaggies, of an elliptical Gaussian off the middle."""
    offset = torch.arange(pixels) - (pixels - 1) / 2
    x, y = offset[None, :] - 0.3, offset[:, None] + 0.4
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    density = torch.exp(-0.5 * (u**2 * axis_ratio + v**2 / axis_ratio) / size**2) / (2 * np.pi * size**2)
    return torch.tensor(fluxes).view(1, -1, 1, 1) * density


def parts_of(columns: Tensor, n_bands: int) -> dict[str, Tensor]:
    sizes = {"magnitudes": N_APERTURES * n_bands, "colours": N_APERTURES * (n_bands - 1)}
    sizes |= {"concentrations": (N_APERTURES - 1) * n_bands, "own": 2, "shapes": 4 * n_bands}
    return dict(zip(sizes, columns.split(list(sizes.values()), dim=1), strict=True))


def test_adaptive_photometry_measures_an_elliptical_gaussian() -> None:
    size, axis_ratio = 4.0, 0.5
    image = elliptical_galaxy(size, axis_ratio, 0.6, (100.0, 250.0))
    columns = AdaptivePhotometry(2, 64)(image)
    found = parts_of(columns, 2)
    # An aperture of s times the galaxy's size holds s^2 / (1 + s^2) of its flux.
    squares = 2.0 ** torch.arange(-3, 5)
    expected = torch.asinh(torch.tensor([100.0, 250.0]) * (squares / (1 + squares))[:, None] / 2)
    torch.testing.assert_close(found["magnitudes"].view(N_APERTURES, 2), expected, atol=0.05, rtol=0)
    torch.testing.assert_close(found["colours"][0], expected[:, 1] - expected[:, 0], atol=3e-3, rtol=0)
    elongation = (1 - axis_ratio**2) / (1 + axis_ratio**2)
    assert found["own"][0].tolist() == pytest.approx([np.log(size), elongation], abs=0.03)
    assert found["shapes"].std() < 1  # the axis is found: elongations along it are positive
    assert (found["shapes"] > 0).all()


def test_adaptive_photometry_does_not_see_a_neighbour() -> None:
    noise = 0.02 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(7))
    image = elliptical_galaxy(3.0, 0.7, 1.0, (100.0, 150.0, 200.0)) + noise
    photometry = AdaptivePhotometry(3, 64)
    alone = photometry(image)
    image[:, :, 40:46, 50:56] += torch.tensor([3.0, 1.0, 0.5]).view(3, 1, 1)
    torch.testing.assert_close(photometry(image)[:, :24], alone[:, :24], atol=0.01, rtol=0)


def test_adaptive_photometry_has_the_symmetries_of_the_square() -> None:
    generator = torch.Generator().manual_seed(7)
    image = elliptical_galaxy(4.0, 0.6, 0.4, (50.0, 100.0, 150.0)).repeat(N_SYMMETRIES, 1, 1, 1)
    image += 0.05 * torch.randn(1, 3, 64, 64, generator=generator)
    image[:, :, 10:14, 30:33] += 1  # a neighbour
    columns = AdaptivePhotometry(3, 64)(apply_symmetry(image, torch.arange(N_SYMMETRIES)))
    torch.testing.assert_close(columns, columns[:1].expand_as(columns), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("pixels", [2, 33, 64])
@pytest.mark.parametrize("scale", [0.0, -1.0, 1e-6, 1e5])
def test_fast_is_finite_whatever_the_image(scale: float, pixels: int) -> None:
    generator = torch.Generator().manual_seed(9)
    image = scale * torch.rand(3, 5, pixels, pixels, generator=generator)
    image[1] = scale * torch.randn(5, pixels, pixels, generator=generator)
    columns = measure(image)
    encoder = build_encoder("fast", columns.shape[1], pixels, generator=generator)
    embedding = encoder(columns, torch.zeros(3))
    embedding.sum().backward()
    assert torch.isfinite(embedding).all()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


def test_adaptive_photometry_stays_float32_under_autocast() -> None:
    photometry = AdaptivePhotometry(5, 64)
    image = torch.rand(2, 5, 64, 64, generator=torch.Generator().manual_seed(7))
    with torch.autocast("cpu", torch.bfloat16):
        columns = photometry(image)
    assert columns.dtype == torch.float32
    torch.testing.assert_close(columns, photometry(image))


def test_of_3x3_pools() -> None:
    maps = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(7))
    pools = {"max": of_3x3(maps, torch.maximum, -np.inf), "mean": of_3x3(maps, torch.add, 0.0) / 9}
    assert torch.equal(pools["max"], F.max_pool2d(maps, 3, stride=1, padding=1))
    torch.testing.assert_close(pools["mean"], F.avg_pool2d(maps, 3, stride=1, padding=1))


@pytest.mark.parametrize("n", [1, 4, 5])
def test_median_is_that_of_torch(n: int) -> None:
    values = torch.randn(3, 2, n, generator=torch.Generator().manual_seed(7))
    assert torch.equal(median(values), values.median(dim=-1).values)


def test_measuring_does_not_depend_on_the_batch() -> None:
    images = torch.rand(CHUNK + 3, 2, 16, 16, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(measure(images)[-2:], measure(images[-2:]))
    assert measure(images).shape == (CHUNK + 3, AdaptivePhotometry(2, 16).n_columns)


def test_steady_columns_are_of_one_aperture() -> None:
    image = elliptical_galaxy(4.0, 0.5, 0.6, (50.0, 100.0, 250.0))
    columns = MeasuredInputs(steady=True)(image, torch.zeros(1))
    magnitude = torch.asinh(torch.tensor([50.0, 100.0, 250.0]) * 0.8 / 2)  # of s^2 / (1 + s^2), s = 2
    expected = [float(magnitude[1]), *magnitude.diff().tolist(), np.log(4.0), 0.6]
    assert columns[0].tolist() == pytest.approx(expected, abs=0.05)
    of_all = parts_of(measure(image), 3)
    same = [of_all["magnitudes"][:, 3 * STEADY + 1, None], of_all["colours"][:, 2 * STEADY : 2 * STEADY + 2]]
    torch.testing.assert_close(columns, torch.cat([*same, of_all["own"]], dim=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["fast", "steady"])
def test_fast_learns(name: str) -> None:
    generator = torch.Generator().manual_seed(8)
    image, ebv = torch.randn(64, 3, 32, 32, generator=generator), torch.rand(64, generator=generator)
    inputs = encoder_class(name).inputs(PhotometrySettings(), "images", with_errors=False)
    columns = inputs(image, torch.zeros(64))
    encoder = build_encoder(name, columns.shape[1], 32, generator=generator)
    encoder.standardise(columns, ebv)
    readout = nn.Linear(encoder.n_features, 1)
    optimiser = torch.optim.Adam([*encoder.parameters(), *readout.parameters()], lr=1e-3)
    losses = []
    for _ in range(60):
        loss = F.mse_loss(readout(encoder(columns, ebv))[:, 0], ebv)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert all(p.grad is not None for p in encoder.parameters())
