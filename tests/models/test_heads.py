import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from photoz_lit.correction.losses.functions import hard_label_loss
from photoz_lit.models.encoders import build_encoder
from photoz_lit.models.encoders.settings import MLPSettings
from photoz_lit.models.heads import (
    AnyHead,
    Ensemble,
    Head,
    HiddenHead,
    Mean,
    PhotozNet,
    StackedHeads,
    mixture,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_net(trainable: str = "all") -> PhotozNet:
    """A network of dropout, standardisation, three outputs of four bins and a gate."""
    encoder = build_encoder("mlp", 5, 0, MLPSettings(hidden=[16, 8]), seeded(1))
    encoder.layers.insert(2, nn.Dropout(0.5))  # type: ignore[operator,union-attr]
    head = Head(8, 3, 4, generator=seeded(2))
    return PhotozNet(encoder, head, trainable)  # type: ignore[arg-type]


def take_steps(net: nn.Module, inputs: tuple[Tensor, ...], n_bins: int, n_steps: int = 5) -> None:
    """A few steps of Adam, with weight decay, on whatever trains."""
    optimiser = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    z_bin = torch.arange(len(inputs[0])) % n_bins
    member = torch.ones(len(inputs[0]), 3, dtype=torch.bool)
    net.train()
    for _ in range(n_steps):
        loss = hard_label_loss(*net(*inputs), z_bin, member)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def test_outputs_are_separate_layers() -> None:
    head = Head(6, 3, 4, generator=seeded(3))
    embedding = torch.randn(5, 6, generator=seeded(4))
    z_logits, gate_logits = head(embedding)
    assert z_logits.shape == (5, 3, 4)
    assert gate_logits is not None
    assert gate_logits.shape == (5, 3)
    for i in range(3):
        rows = slice(4 * i, 4 * i + 4)
        expected = nn.functional.linear(embedding, head.redshift.weight[rows], head.redshift.bias[rows])
        torch.testing.assert_close(z_logits[:, i], expected)


def test_each_output_starts_xavier_uniform() -> None:
    head = Head(100, 4, 60, generator=seeded(5))
    bound = (6 / (100 + 60)) ** 0.5
    for block in head.redshift.weight.view(4, 60, 100):
        assert 0.99 * bound < block.abs().max().item() <= bound
        assert block.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
    assert head.gate is not None
    assert 0.9 * (6 / 104) ** 0.5 < head.gate.weight.abs().max().item() <= (6 / 104) ** 0.5
    assert (head.redshift.bias == 0.1).all()
    assert (head.gate.bias == 0.1).all()


def test_weights_are_a_function_of_the_generator() -> None:
    first, again = (Head(6, 3, 4, generator=seeded(6)).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize(("n_outputs", "gate"), [(1, False), (3, True)])
def test_gate_goes_with_several_outputs(n_outputs: int, gate: bool) -> None:
    assert (Head(6, n_outputs, 4).gate is not None) == gate


def test_mixture_weights_the_outputs() -> None:
    z_logits = torch.tensor([[[0.0, 0.0], [0.0, torch.inf]]]).nan_to_num(posinf=80.0)
    gate_logits = torch.log(torch.tensor([[0.25, 0.75]]))
    torch.testing.assert_close(mixture(z_logits, gate_logits), torch.tensor([[0.125, 0.875]]))


def test_mixture_of_a_single_output_is_its_softmax() -> None:
    z_logits = torch.randn(3, 1, 7, generator=seeded(7))
    torch.testing.assert_close(mixture(z_logits, None), torch.softmax(z_logits[:, 0], dim=1))
    with pytest.raises(ValueError, match="need a gate"):
        mixture(torch.zeros(3, 2, 7), None)


def test_mixture_is_float32_under_autocast() -> None:
    z_logits, gate_logits = torch.randn(4, 3, 50, generator=seeded(8)), torch.randn(4, 3, generator=seeded(9))
    with torch.autocast("cpu", torch.bfloat16):
        pdf = mixture(z_logits, gate_logits)
    assert pdf.dtype == torch.float32
    torch.testing.assert_close(pdf, mixture(z_logits, gate_logits))
    torch.testing.assert_close(pdf.sum(1), torch.ones(4))


def test_head_is_float32_in_evaluation_only() -> None:
    head = Head(6, 3, 4, generator=seeded(10))
    embedding = torch.randn(5, 6, generator=seeded(11))
    exact, _ = head(embedding)
    with torch.autocast("cpu", torch.bfloat16):
        training, _ = head(embedding)
        evaluation, gate_logits = head.eval()(embedding.bfloat16())
    assert training.dtype == torch.bfloat16
    assert evaluation.dtype == gate_logits.dtype == torch.float32
    torch.testing.assert_close(evaluation, head(embedding.bfloat16().float())[0])
    torch.testing.assert_close(evaluation, exact, atol=0.02, rtol=0)


def test_new_bins_keep_the_gate() -> None:
    head = Head(6, 3, 4, generator=seeded(12))
    new = head.with_new_bins(10, seeded(13))
    embedding = torch.randn(5, 6, generator=seeded(14))
    (old_z, old_gate), (new_z, new_gate) = head(embedding), new(embedding)
    assert old_z.shape == (5, 3, 4)
    assert new_z.shape == (5, 3, 10)
    assert torch.equal(old_gate, new_gate)
    assert new.gate is not head.gate
    assert [name for name, p in new.named_parameters() if p.requires_grad] == [
        "redshift.weight",
        "redshift.bias",
    ]
    assert all(p.requires_grad for p in head.parameters())


def test_new_bins_of_a_single_output() -> None:
    new = Head(6, 1, 4).with_new_bins(9)
    z_logits, gate_logits = new(torch.zeros(2, 6))
    assert z_logits.shape == (2, 1, 9)
    assert gate_logits is None


def test_frozen_state_is_bit_identical_after_training() -> None:
    net = small_net()
    columns, ebv = torch.randn(32, 5, generator=seeded(15)), torch.rand(32, generator=seeded(16))
    net.encoder.standardise(columns, ebv)  # type: ignore[union-attr,operator]
    net.set_trainable("redshift_outputs")
    before = copy.deepcopy(net.state_dict())
    take_steps(net, (columns, ebv), n_bins=4)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"head.redshift.weight", "head.redshift.bias"}


def test_frozen_head_keeps_its_gate_on_cached_embeddings() -> None:
    head = Head(8, 3, 4, generator=seeded(17)).with_new_bins(6, seeded(18))
    before = copy.deepcopy(head.state_dict())
    take_steps(head, (torch.randn(32, 8, generator=seeded(19)),), n_bins=6)
    changed = {name for name, value in head.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"redshift.weight", "redshift.bias"}


def test_frozen_parts_stay_in_evaluation_mode() -> None:
    net = small_net("redshift_outputs")
    columns, ebv = torch.randn(4, 5, generator=seeded(20)), torch.zeros(4)
    for mode in (True, False, True):
        net.train(mode)
        assert not any(module.training for module in net.encoder.modules())
        assert net.head.training is mode
        # Dropout would make two passes differ.
        torch.testing.assert_close(net(columns, ebv)[0], net(columns, ebv)[0], rtol=0, atol=0)
    net.set_trainable("all")
    assert all(module.training for module in net.modules())
    assert all(p.requires_grad for p in net.parameters())
    assert not torch.equal(net(columns, ebv)[0], net(columns, ebv)[0])


def test_everything_trains_by_default() -> None:
    net = small_net()
    before = copy.deepcopy(net.state_dict())
    take_steps(
        net, (torch.randn(32, 5, generator=seeded(21)), torch.rand(32, generator=seeded(22))), n_bins=4
    )
    same = {name for name, value in net.state_dict().items() if torch.equal(value, before[name])}
    assert same == {"encoder.standardisation.mean", "encoder.standardisation.scale"}


def test_hidden_head_starts_from_the_prior_and_learns_on_any_scale() -> None:
    generator = seeded(23)
    x = 1000 + 50 * torch.randn(400, 6, generator=generator)
    prior = torch.tensor([0.1, 0.2, 0.3, 0.4])
    head = HiddenHead(6, 4, 16, seeded(24)).start_from(x, prior)
    torch.testing.assert_close(mixture(*head(x)), prior.expand(400, 4))
    z_bin = (x[:, 0] > 1000).long() + 2 * (x[:, 1] > 1000).long()
    optimiser = torch.optim.Adam(head.parameters(), lr=0.03)
    for _ in range(100):
        loss = hard_label_loss(*head(x), z_bin, torch.ones(400, 1, dtype=torch.bool))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (mixture(*head.eval()(x)).argmax(dim=1) == z_bin).float().mean() > 0.95


def test_unit_that_never_fired_in_training_does_not_explode() -> None:
    x = torch.randn(100, 3, generator=seeded(29)) * torch.tensor([1.0, 0.0, 1e-3])
    head = HiddenHead(3, 4, 8, seeded(30)).start_from(x, torch.full((4,), 0.25))
    with torch.no_grad():
        head.redshift.weight.normal_(generator=seeded(31))
    far = torch.tensor([[0.0, 5.0, 0.0], [0.0, 0.0, 5.0]])
    assert head.scale[1] == 1
    assert head.eval()(far)[0].abs().max() < 100


@pytest.mark.parametrize("mean", ["arithmetic", "harmonic"])
def test_ensemble_is_the_mean_of_its_members(mean: Mean) -> None:
    heads: list[AnyHead] = [Head(6, 3, 4, generator=seeded(i)) for i in (25, 26)]
    heads.append(HiddenHead(6, 4, 8, seeded(27)))
    x = torch.randn(20, 6, generator=seeded(28))
    pdfs = [mixture(*head(x)).detach().numpy() for head in heads]
    combined = mixture(*Ensemble(heads, mean)(x)).detach().numpy()
    expected = np.mean(pdfs, axis=0) if mean == "arithmetic" else 1 / np.mean([1 / p for p in pdfs], axis=0)
    np.testing.assert_allclose(combined, expected / expected.sum(axis=1, keepdims=True), rtol=1e-5)


def test_ensemble_of_certain_heads_stays_finite() -> None:
    head = Head(2, 1, 3)
    with torch.no_grad():
        head.redshift.bias.copy_(torch.tensor([500.0, 0.0, -500.0]))
    for mean in ("arithmetic", "harmonic"):
        pdf = mixture(*Ensemble([head, head], mean)(torch.zeros(1, 2)))  # type: ignore[arg-type]
        torch.testing.assert_close(pdf, torch.tensor([[1.0, 0.0, 0.0]]))


def test_head_must_fit_the_encoder() -> None:
    encoder = build_encoder("net_s1", 5, 64)
    with pytest.raises(ValueError, match="gives 256 features and the head takes 8"):
        PhotozNet(encoder, Head(8, 3, 4))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["hidden", "gate", "single"])
def test_heads_together_give_what_each_gives(kind: str, training: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(3, 6, 5, generator=generator)
    heads: list[Any] = [Head(5, 1 if kind == "single" else 4, 7, generator) for _ in x]
    if kind == "hidden":
        heads = [HiddenHead(5, 7, 4, generator) for _ in x]
        for i, head in enumerate(heads):
            torch.nn.init.normal_(head.redshift.weight, generator=generator)
            head.start_from(2 * x[i] + i, torch.rand(7, generator=generator) + 0.1)
    if kind == "gate":
        heads[0].gate.requires_grad_(False)
    together = StackedHeads(heads).train(training)
    alone = [head.train(training)(own) for head, own in zip(heads, x, strict=True)]
    for ours, theirs in zip(together(x.flatten(0, 1)), zip(*alone, strict=True), strict=True):
        if theirs[0] is None:
            assert ours is None
        else:
            torch.testing.assert_close(ours, torch.cat(theirs))
    for i, head in enumerate(heads):
        torch.testing.assert_close(together.state_of(i), dict(head.state_dict()), rtol=0, atol=0)
    frozen = {name for name, values in together.named_parameters() if not values.requires_grad}
    assert frozen == ({"gate_weight", "gate_bias"} if kind == "gate" else set())
