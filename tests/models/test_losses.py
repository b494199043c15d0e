from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from photoz_lit import metrics
from photoz_lit.data.transforms import stretch
from photoz_lit.grids import MagnitudeSlices
from photoz_lit.models.heads import mixture
from photoz_lit.models.losses import (
    crps_loss,
    galaxy_label_loss,
    gate_cross_entropy,
    hard_label_cross_entropy,
    hard_label_loss,
    logit_adjusted_loss,
    soft_label_cross_entropy,
    soft_label_loss,
    trend_penalty,
)

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
    loss = hard_label_cross_entropy(z_logits, golden_bins(arrays) + left, torch.ones_like(member))
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
    loss = soft_label_cross_entropy(logits, target)
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


# Known alternatives


def minimised(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """Logits where a loss is least."""
    logits = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [logits], max_iter=500, line_search_fn="strong_wolfe", tolerance_change=1e-12
    )

    def closure() -> float:
        optimiser.zero_grad()
        value = loss(logits)
        value.backward()  # type: ignore[no-untyped-call]
        return value.item()

    optimiser.step(closure)
    return logits.detach()


def test_weights_multiply_galaxies(problem: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    z_logits, gate_logits, z_bin, member = problem
    weight = torch.tensor([2.0, 0, 0, 1, 0, 0, 4])
    rows = [hard_label_cross_entropy(z_logits[[g]], z_bin[[g]], member[[g]]) for g in (0, 3, 6)]
    expected = (2 * rows[0] + rows[1] + 4 * rows[2]) / 7 + gate_cross_entropy(gate_logits, member)
    torch.testing.assert_close(hard_label_loss(z_logits, gate_logits, z_bin, member, weight), expected)
    same = hard_label_loss(z_logits, gate_logits, z_bin, member, torch.ones(7))
    torch.testing.assert_close(same, hard_label_loss(z_logits, gate_logits, z_bin, member))


def test_adjusted_logits_have_no_prior_left() -> None:
    """Logits alike for all galaxies: a plain loss learns their n(z), the adjusted one that it is flat."""
    counts = torch.tensor([40, 30, 20, 10])
    z_bin = torch.repeat_interleave(torch.arange(4), counts)
    member, log_prior = torch.ones(100, 1, dtype=torch.bool), (counts / 100).log()[None]

    def adjusted(logits: Tensor) -> Tensor:
        return logit_adjusted_loss(logits.expand(100, 1, 4), None, z_bin, member, log_prior)

    def plain(logits: Tensor) -> Tensor:
        return hard_label_loss(logits.expand(100, 1, 4), None, z_bin, member)

    start = torch.tensor([[[0.3, -0.2, 0.5, 0.0]]])
    flat, own = (torch.softmax(minimised(loss, start), 2)[0, 0] for loss in (adjusted, plain))
    torch.testing.assert_close(flat, torch.full((4,), 0.25), atol=1e-3, rtol=0)
    torch.testing.assert_close(own, counts / 100, atol=1e-3, rtol=0)


def test_adjusted_loss_is_balanced_softmax(problem: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """-log(n_y e^f_y / sum_k n_k e^f_k) in member outputs; outputs of others and power 0 are plain."""
    z_logits, gate_logits, z_bin, member = problem
    counts = torch.randint(1, 50, (3, 5), generator=torch.Generator().manual_seed(4)).float()
    loss = logit_adjusted_loss(z_logits, gate_logits, z_bin, member, counts.log())
    weighted = counts * z_logits.exp()
    one_hot = torch.nn.functional.one_hot(z_bin, 5)[:, None].bool()
    balanced = -(weighted / weighted.sum(2, keepdim=True)).log().masked_select(one_hot).view(7, 3)
    uniform = -torch.log_softmax(z_logits, 2).mean(2)
    expected = torch.where(member, balanced, uniform).sum(1).mean() + gate_cross_entropy(gate_logits, member)
    torch.testing.assert_close(loss, expected)
    plain = logit_adjusted_loss(z_logits, gate_logits, z_bin, member, counts.log(), power=0.0)
    torch.testing.assert_close(plain, hard_label_loss(z_logits, gate_logits, z_bin, member))


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


def stepwise_crps(pdf: Any, k: Any) -> Any:
    """CRPS in bins, F being constant within a bin, where the metrics integrate straight lines."""
    reached = np.arange(pdf.shape[1]) >= k[:, None]
    return ((metrics.cumulative(pdf)[:, 1:] - reached) ** 2).sum(axis=1)


def test_crps_is_that_of_steps(problem: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    z_logits, gate_logits, z_bin, member = problem
    pdf = mixture(z_logits, gate_logits)
    score = stepwise_crps(pdf.numpy(), z_bin.numpy())
    loss = crps_loss(z_logits, gate_logits, z_bin, member) - gate_cross_entropy(gate_logits, member)
    assert loss.item() == pytest.approx(score.mean(), rel=1e-5)
    weight = torch.arange(7.0)
    loss = crps_loss(z_logits[:, :1], None, z_bin, member, weight)
    single = stepwise_crps(torch.softmax(z_logits[:, 0], 1).numpy(), z_bin.numpy())
    assert loss.item() == pytest.approx((weight.numpy() * single).mean(), rel=1e-5)


def test_crps_is_least_where_pdf_is_the_distribution_of_labels() -> None:
    counts = torch.tensor([10, 40, 30, 20])
    z_bin, member = torch.repeat_interleave(torch.arange(4), counts), torch.ones(100, 1, dtype=torch.bool)
    logits = minimised(lambda x: crps_loss(x.expand(100, 1, 4), None, z_bin, member), torch.zeros(1, 1, 4))
    torch.testing.assert_close(torch.softmax(logits, 2)[0, 0], counts / 100, atol=2e-3, rtol=0)


def test_crps_costs_more_the_farther_a_miss() -> None:
    logits = 20 * torch.nn.functional.one_hot(torch.tensor([3, 5]), 9)[:, None].float()
    member = torch.ones(1, 1, dtype=torch.bool)
    near, far = (crps_loss(row[None], None, torch.tensor([2]), member).item() for row in logits)
    assert far == pytest.approx(3 * near, rel=1e-3)


def test_gradients_are_finite_differences(problem: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    z_logits, gate_logits, z_bin, member = problem
    z, gate = z_logits.requires_grad_(), gate_logits.requires_grad_()
    generator = torch.Generator().manual_seed(6)
    centres, log_prior = torch.linspace(0.1, 0.5, 5), torch.randn(3, 5, generator=generator)
    losses: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda a, b: crps_loss(a, b, z_bin, member),
        lambda a, b: trend_penalty(a, b, centres[z_bin], centres),
        lambda a, b: logit_adjusted_loss(a, b, z_bin, member, log_prior),
    ]
    step = torch.randn(z.shape, generator=generator)
    for loss in losses:
        (gradient,) = torch.autograd.grad(loss(z, gate), z)
        ahead, behind = (loss(z.detach() + sign * 0.01 * step, gate.detach()).item() for sign in (1, -1))
        expected = (ahead - behind) / 0.02
        assert (gradient * step).sum().item() == pytest.approx(expected, rel=2e-3, abs=1e-4)


def test_trend_is_the_slope_of_the_residuals() -> None:
    """Sharp p(z) at 0.3 + a (z - 0.3) have the slope a - 1."""
    centres = torch.linspace(0.0, 0.6, 61)
    spec_z = centres[5:56:5]
    for a in (1.0, 0.8, 0.0):
        at = (0.3 + a * (spec_z - 0.3)).mul(100).round().long()
        logits = 100 * torch.nn.functional.one_hot(at, 61)[:, None].float()
        assert trend_penalty(logits, None, spec_z, centres).item() == pytest.approx((a - 1) ** 2, abs=1e-6)
    alone = trend_penalty(logits[:3], None, torch.full((3,), 0.2), centres)
    assert alone.item() == 0


def test_trend_penalty_removes_the_pull_towards_the_mean() -> None:
    """A linear fit to noisy inputs is attenuated by 1/2; with the penalty its residuals have little trend."""
    generator = torch.Generator().manual_seed(7)
    spec_z = 0.3 + 0.05 * torch.randn(2000, generator=generator)
    measured = (spec_z - 0.3) / 0.05 + torch.randn(2000, generator=generator)
    centres = torch.linspace(0.0, 0.6, 61)
    z_bin, member = (spec_z * 100).round().long().clamp(0, 60), torch.ones(2000, 1, dtype=torch.bool)

    def logits(parameter: Tensor) -> Tensor:
        mean = 0.3 + 0.05 * parameter[0] * measured
        return (-0.5 * ((centres - mean[:, None]) / 0.04) ** 2)[:, None]

    def fit(strength: float) -> float:
        def loss(parameter: Tensor) -> Tensor:
            z_logits = logits(parameter)
            penalty = trend_penalty(z_logits, None, spec_z, centres)
            return hard_label_loss(z_logits, None, z_bin, member) + strength * penalty

        return minimised(loss, torch.tensor([0.1])).item()

    assert fit(0.0) == pytest.approx(0.5, abs=0.03)
    assert fit(100.0) == pytest.approx(1.0, abs=0.03)
