import pytest
import torch
from torch import Tensor

from photoz_lit.config import TrainingConfig
from photoz_lit.correction.losses.functions import hard_label_loss, soft_label_loss
from photoz_lit.data.transforms import CatalogueInputs
from photoz_lit.models.encoders import build_encoder
from photoz_lit.models.encoders.settings import MLPSettings
from photoz_lit.models.heads import Head, PhotozNet
from photoz_lit.models.module import PhotozModule
from photoz_lit.models.objective import LossFunction, SoftLabels, hard_labels

MEMBERSHIP = torch.tensor([[True, False], [True, True], [False, True]])


def net(trainable: str = "all") -> PhotozNet:
    generator = torch.Generator().manual_seed(0)
    encoder = build_encoder("mlp", 5, 0, MLPSettings(hidden=[8]), generator)
    head = Head(encoder.n_features, 2, 6, generator)
    return PhotozNet(encoder, head, trainable)  # type: ignore[arg-type]


def module(minimised: LossFunction = hard_labels, trainable: str = "all", **training: object) -> PhotozModule:
    settings = TrainingConfig(max_steps=10, check_every=5, lr=0.1, **training)  # type: ignore[arg-type]
    return PhotozModule(net(trainable), MEMBERSHIP, settings, 1, CatalogueInputs(), {"seed": 1}, minimised)


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "inputs": torch.rand(4, 2, 2, generator=generator) + 17,
        "ebv": torch.zeros(4),
        "view": torch.zeros(4, dtype=torch.int64),
        "z_bin": torch.tensor([0, 1, 4, 5]),
        "r_slice": torch.tensor([0, 1, 2, 1]),
        "cell": torch.tensor([0, 1, 2, 1]),
    }


def test_loss_is_of_the_one_hot_label_of_each_galaxy() -> None:
    one = module()
    z_logits, gate_logits = one(batch())
    expected = hard_label_loss(z_logits, gate_logits, batch()["z_bin"], MEMBERSHIP[batch()["r_slice"]])
    assert torch.equal(one.loss(batch()), expected)


def test_loss_is_of_the_table_of_labels_where_there_is_one() -> None:
    table = torch.rand(3, 2, 6, generator=torch.Generator().manual_seed(2))
    table = table / table.sum(-1, keepdim=True)
    one = module(SoftLabels(table))
    z_logits, gate_logits = one(batch())
    expected = soft_label_loss(z_logits, gate_logits, table[batch()["cell"]], MEMBERSHIP[batch()["r_slice"]])
    assert torch.equal(one.loss(batch()), expected)


def test_loss_reads_the_batch_with_its_membership() -> None:
    seen: dict[str, Tensor] = {}

    def loss(logits: tuple[Tensor, Tensor | None], given: dict[str, Tensor]) -> Tensor:
        seen.update(given)
        return logits[0].sum()

    one = module(loss)
    assert torch.equal(one.loss(batch()), one(batch())[0].sum())
    assert seen.keys() == batch().keys() | {"member"}
    assert torch.equal(seen["member"], MEMBERSHIP[batch()["r_slice"]])


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("constant", (0.1, 0.1)), ("halfway_drop", (0.1, 0.02)), ("one_cycle", (None, 0.0))],
)
def test_schedules(schedule: str, rates: tuple[float | None, float]) -> None:
    made = module(schedule=schedule).configure_optimizers()
    optimiser, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rate = [optimiser.param_groups[0]["lr"]]
    for _ in range(10):
        optimiser.step()
        scheduler.step()
        rate.append(optimiser.param_groups[0]["lr"])
    if rates[0] is not None:
        assert rate[0] == pytest.approx(rates[0])
        assert rate[4] == pytest.approx(rates[0])
    assert rate[9] == pytest.approx(rates[1], abs=5e-3)
    assert max(rate) == pytest.approx(0.1, rel=0.05)


def test_frozen_parts_are_not_the_optimisers() -> None:
    one = module(trainable="redshift_outputs")
    held = {p for group in one.configure_optimizers()["optimizer"].param_groups for p in group["params"]}
    assert held == set(one.net.head.redshift.parameters())
    one.train()
    assert not one.net.encoder.training


def test_checkpoint_gets_the_settings_and_no_tables() -> None:
    checkpoint: dict[str, object] = {}
    one = module(SoftLabels(torch.ones(3, 2, 6)))
    one.on_save_checkpoint(checkpoint)
    assert checkpoint == {"settings": {"seed": 1}}
    assert all(name.startswith("net.") for name in one.state_dict())


def test_randomness_of_a_step_is_a_function_of_seed_and_step() -> None:
    one = module()
    drawn = []
    for _ in range(2):
        one.begin_step()
        drawn.append(torch.rand(3))
        torch.manual_seed(99)
    assert torch.equal(*drawn)
