import numpy as np
import pytest
import torch

from photoz_lit.data.transforms import CatalogueInputs, ImageInputs, apply_symmetry, stretch


def test_apply_symmetry_gives_each_element_of_the_squares_group_once() -> None:
    image = np.arange(16.0).reshape(1, 4, 4)
    group = {np.rot90(side, k, (1, 2)).tobytes() for side in (image, image[:, :, ::-1]) for k in range(4)}
    turned = apply_symmetry(torch.from_numpy(np.repeat(image[None], 8, 0)), torch.arange(8)).numpy()
    assert len(group) == 8
    assert {one.tobytes() for one in turned} == group


def test_symmetry_0_is_the_image_itself_and_bands_keep_their_places() -> None:
    images = torch.rand(2, 5, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(apply_symmetry(images, torch.zeros(2, dtype=torch.int64)), images)
    turned = apply_symmetry(images, torch.tensor([3, 6]))
    assert torch.allclose(turned.sum((2, 3)), images.sum((2, 3)))


def test_each_image_has_its_own_symmetry() -> None:
    images = torch.rand(8, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    together = apply_symmetry(images, torch.arange(8))
    for i in range(8):
        assert torch.equal(together[i : i + 1], apply_symmetry(images[i : i + 1], torch.tensor([i])))


def test_stretch_of_the_paper() -> None:
    x = torch.tensor([-8.0, -3.0, 0.0, 3.0, 8.0])
    assert torch.allclose(stretch(x), torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]))
    assert torch.allclose(stretch(x * 0.05, 0.05), stretch(x))


def test_image_inputs_turn_then_stretch_in_float32() -> None:
    images = torch.rand(4, 2, 3, 3, generator=torch.Generator().manual_seed(0)).half()
    view = torch.tensor([0, 1, 2, 7])
    out = ImageInputs(0.5)(images, view)
    assert out.dtype == torch.float32
    assert torch.equal(out, stretch(apply_symmetry(images, view).float(), 0.5))


def test_catalogue_inputs_are_magnitudes_colours_errors() -> None:
    raw = torch.tensor([[[20.0, 19.0, 17.0], [0.1, 0.2, 0.3]]])
    view = torch.zeros(1, dtype=torch.int64)
    assert CatalogueInputs()(raw, view).tolist() == [
        pytest.approx([20.0, 19.0, 17.0, 1.0, 2.0, 0.1, 0.2, 0.3])
    ]
    assert CatalogueInputs(with_errors=False)(raw, view).shape == (1, 5)
    assert CatalogueInputs().n_views == 1


def test_noise_follows_the_draws_and_leaves_view_0_alone() -> None:
    raw = torch.stack([torch.full((500, 3), 20.0), torch.full((500, 3), 0.1)], dim=1)
    inputs, view = CatalogueInputs(noise=2.0), torch.arange(500) % 2
    unit = torch.randn(500, 3, generator=torch.Generator().manual_seed(1))
    out = inputs(raw, view, unit)
    assert torch.equal(inputs(raw, view)[:, :3], raw[:, 0])
    assert (out[::2, :3] == 20).all()
    assert out[1::2, :3].std() == pytest.approx(0.2, rel=0.1)
    assert inputs.n_views == 8
