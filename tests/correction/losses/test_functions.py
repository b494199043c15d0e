from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from photoz_lit.correction.losses.functions import (
    galaxy_label_loss,
    gate_cross_entropy,
    hard_label_loss,
    mixture,
    soft_label_loss,
)
from photoz_lit.data.transforms import stretch
from photoz_lit.grids import MagnitudeSlices

SINGLE_MEMBER = MagnitudeSlices(12.5, 5.5, 1).membership


def split_logits(flat: np.ndarray, n_outputs: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The flat logits as a leaf, and its views as z_logits (n, R, K) and gate_logits (n, R)."""
    leaf = torch.tensor(flat, dtype=dtype, requires_grad=True)
    return leaf, leaf[:, :-n_outputs].unflatten(1, (n_outputs, -1)), leaf[:, -n_outputs:]


def golden_member(arrays: dict[str, Any]) -> Tensor:
    return torch.from_numpy(arrays["compressed_r_labels"] > 0)


def golden_bins(arrays: dict[str, Any]) -> Tensor:
    """Bins of the labels: the last K columns of `s12_y`."""
    n_bins = arrays["s12_mixture"].shape[1]
    return torch.from_numpy(arrays["s12_y"][:, -n_bins:].argmax(axis=1))


def assert_golden_loss_and_gradient(loss: Tensor, leaf: Tensor, arrays: dict[str, Any], step: str) -> None:
    np.testing.assert_allclose(loss.item(), arrays[f"{step}_loss"], rtol=1e-6)
    np.testing.assert_allclose(loss.item(), arrays[f"{step}_loss_float64"], rtol=1e-6)
    loss.backward()
    assert leaf.grad is not None
    np.testing.assert_allclose(leaf.grad.numpy(), arrays[f"{step}_grad_logits"], rtol=1e-5, atol=1e-8)


def test_golden_a3_loss_step_1(golden: Any) -> None:
    """Arrays `s12_loss`, `s12_loss_float64`, `s12_grad_logits` from `s12_logits`, `s12_y`."""
    arrays = golden("a3_loss")
    member = golden_member(arrays)
    leaf, z_logits, gate_logits = split_logits(arrays["s12_logits"], member.shape[1], torch.float32)
    loss = hard_label_loss(z_logits, gate_logits, golden_bins(arrays), member)
    assert_golden_loss_and_gradient(loss, leaf, arrays, "s12")


def test_golden_a3_loss_step_3(golden: Any) -> None:
    """Arrays `s3_loss`, `s3_loss_float64`, `s3_grad_logits` from `s3_logits`, `s3_y`."""
    arrays = golden("a3_loss")
    member = golden_member(arrays)
    leaf, z_logits, gate_logits = split_logits(arrays["s3_logits"], member.shape[1], torch.float32)
    target = torch.from_numpy(arrays["s3_y"][:, -z_logits[0].numel() :]).reshape(z_logits.shape)
    loss = soft_label_loss(z_logits, gate_logits, target, member)
    assert_golden_loss_and_gradient(loss, leaf, arrays, "s3")


def test_golden_a3_loss_step_3_in_testing(golden: Any) -> None:
    """Array `s3test_loss`: the original's one-hot label in all outputs, members or not."""
    arrays = golden("a3_loss")
    member = golden_member(arrays)
    _, z_logits, gate_logits = split_logits(arrays["s3_logits"], member.shape[1], torch.float32)
    # The survey's bins are in the middle of the extended ones.
    left = (z_logits.shape[2] - arrays["s12_mixture"].shape[1]) // 2
    loss = hard_label_loss(z_logits, None, golden_bins(arrays) + left, torch.ones_like(member))
    loss = loss + gate_cross_entropy(gate_logits, member)
    np.testing.assert_allclose(loss.item(), arrays["s3test_loss"], rtol=1e-6)


def test_golden_a3_loss_baseline(golden: Any) -> None:
    """Arrays `s0_loss`, `s0_p` from `s0_logits`."""
    arrays = golden("a3_loss")
    z_logits = torch.from_numpy(arrays["s0_logits"])[:, None]
    member = torch.ones(len(z_logits), 1, dtype=torch.bool)
    loss = hard_label_loss(z_logits, None, golden_bins(arrays), member)
    np.testing.assert_allclose(loss.item(), arrays["s0_loss"], rtol=1e-6)
    np.testing.assert_allclose(mixture(z_logits, None).numpy(), arrays["s0_p"], rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("step", ["s12", "s3"])
def test_golden_a3_loss_mixture(golden: Any, step: str) -> None:
    """Arrays `s12_mixture`, `s3_mixture`."""
    arrays = golden("a3_loss")
    n_outputs = arrays["compressed_r_labels"].shape[1]
    _, z_logits, gate_logits = split_logits(arrays[f"{step}_logits"], n_outputs, torch.float32)
    pdf = mixture(z_logits, gate_logits).detach().numpy()
    np.testing.assert_allclose(pdf, arrays[f"{step}_mixture"], rtol=2e-6, atol=1e-9)


def test_golden_a3_loss_membership(golden: Any) -> None:
    """Arrays `compressed_r_labels`, `r_row` from `r`."""
    arrays = golden("a3_loss")
    slices = MagnitudeSlices(12.5, 0.5, 2 * arrays["compressed_r_labels"].shape[1] - 1)
    np.testing.assert_array_equal(slices.index(arrays["r"]), arrays["r_row"])
    np.testing.assert_array_equal(slices.membership[arrays["r_row"]], arrays["compressed_r_labels"] > 0)


def test_golden_a3_loss_image_normalisation(golden: Any) -> None:
    """Array `norm_out` from `norm_in`."""
    arrays = golden("a3_loss")
    out = stretch(torch.from_numpy(arrays["norm_in"])).numpy()
    np.testing.assert_allclose(out, arrays["norm_out"], rtol=1e-6, atol=1e-12)


# Closed forms.


@pytest.fixture
def problem() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z_logits, gate_logits, z_bin and member of 7 galaxies, 3 outputs and 5 bins."""
    generator = torch.Generator().manual_seed(1)
    membership = torch.from_numpy(MagnitudeSlices(12.5, 1.0, 5).membership)
    z_logits = 3 * torch.randn(7, 3, 5, generator=generator)
    member = membership[torch.arange(7) % 5]
    z_bin = torch.randint(5, (7,), generator=generator)
    return z_logits, torch.randn(7, 3, generator=generator), z_bin, member


def test_uniform_logits_cost_the_logarithms(problem: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    z_logits, gate_logits, z_bin, member = problem
    loss = hard_label_loss(torch.zeros_like(z_logits), torch.zeros_like(gate_logits), z_bin, member)
    assert loss.item() == pytest.approx(3 * np.log(5) + np.log(3), rel=1e-6)


def test_baseline_is_cross_entropy(problem: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    z_logits, _, z_bin, _ = problem
    member = torch.from_numpy(SINGLE_MEMBER).expand(7, 1)
    loss = hard_label_loss(z_logits[:, :1], None, z_bin, member)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(z_logits[:, 0], z_bin))


def test_hard_loss_is_the_soft_loss_of_its_labels(problem: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    z_logits, gate_logits, z_bin, member = problem
    one_hot = torch.nn.functional.one_hot(z_bin, 5)[:, None].float()
    target = torch.where(member[:, :, None], one_hot, 1 / 5)
    soft = soft_label_loss(z_logits, gate_logits, target, member)
    torch.testing.assert_close(hard_label_loss(z_logits, gate_logits, z_bin, member), soft)


def test_losses_are_the_definition(problem: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    z_logits, gate_logits, _, member = problem
    target = torch.softmax(torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(2)), dim=2)
    rows = []
    for g in range(7):
        row = sum(-(target[g, i] * torch.log_softmax(z_logits[g, i], 0)).sum() for i in range(3))
        share = member[g].float() / member[g].sum()
        rows.append(row - (share * torch.log_softmax(gate_logits[g], 0)).sum())
    torch.testing.assert_close(
        soft_label_loss(z_logits, gate_logits, target, member), torch.stack(rows).mean()
    )


def test_loss_is_least_where_the_outputs_are_the_labels(
    problem: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    _, _, _, member = problem
    target = torch.softmax(torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(3)), dim=2)
    logits = target.log().requires_grad_()
    entropy = -(target * target.log()).sum((1, 2)).mean()
    loss = soft_label_loss(logits, None, target, member)
    torch.testing.assert_close(loss, entropy)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-6, rtol=0)
    gate = (member.float() / member.sum(1, keepdim=True)).clamp_min(1e-9).log().requires_grad_()
    (gradient,) = torch.autograd.grad(gate_cross_entropy(gate, member), gate)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-6, rtol=0)


def test_losses_are_float32_of_bfloat16_logits(problem: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    z_logits, gate_logits, z_bin, member = problem
    z_half, gate_half = z_logits.bfloat16(), gate_logits.bfloat16()
    target = torch.full_like(z_logits, 1 / 5)
    with torch.autocast("cpu", torch.bfloat16):
        hard = hard_label_loss(z_half, gate_half, z_bin, member)
        soft = soft_label_loss(z_half, gate_half, target, member)
    assert hard.dtype == soft.dtype == torch.float32
    torch.testing.assert_close(hard, hard_label_loss(z_half.float(), gate_half.float(), z_bin, member))
    torch.testing.assert_close(soft, soft_label_loss(z_half.float(), gate_half.float(), target, member))


def test_extreme_logits_stay_finite() -> None:
    z_logits = torch.tensor([[[1e4, -1e4, 0.0]]], requires_grad=True)
    member = torch.ones(1, 1, dtype=torch.bool)
    loss = hard_label_loss(z_logits, None, torch.tensor([1]), member)
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert z_logits.grad is not None
    assert torch.isfinite(z_logits.grad).all()


def test_weights_multiply_galaxies(problem: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    z_logits, gate_logits, z_bin, member = problem
    weight = torch.tensor([2.0, 0, 0, 1, 0, 0, 4])
    rows = [hard_label_loss(z_logits[[g]], None, z_bin[[g]], member[[g]]) for g in (0, 3, 6)]
    expected = (2 * rows[0] + rows[1] + 4 * rows[2]) / 7 + gate_cross_entropy(gate_logits, member)
    torch.testing.assert_close(hard_label_loss(z_logits, gate_logits, z_bin, member, weight), expected)
    same = hard_label_loss(z_logits, gate_logits, z_bin, member, torch.ones(7))
    torch.testing.assert_close(same, hard_label_loss(z_logits, gate_logits, z_bin, member))


def test_galaxy_labels_are_soft_labels_of_members(problem: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    z_logits, gate_logits, _, member = problem
    label = torch.softmax(torch.randn(7, 5, generator=torch.Generator().manual_seed(5)), dim=1)
    target = torch.where(member[:, :, None], label[:, None], 1 / 5)
    expected = soft_label_loss(z_logits, gate_logits, target, member)
    torch.testing.assert_close(galaxy_label_loss(z_logits, gate_logits, label, member), expected)
    twice = [torch.cat([a, a[:1]]) for a in (z_logits[:, :1], label, member[:, :1])]
    weight = torch.tensor([2.0] + 6 * [1.0]) * 7 / 8  # the first galaxy counts like two
    torch.testing.assert_close(
        galaxy_label_loss(z_logits[:, :1], None, label, member[:, :1], weight),
        galaxy_label_loss(twice[0], None, *twice[1:]),
    )
