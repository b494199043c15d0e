"""The losses of Steps 1 to 3 (Lin et al. 2022, section 3), as pure functions of logits.

Every output of every galaxy has a target: its label where the galaxy belongs to the output, the uniform 1/K
where not. With l = log softmax(logits), the cross-entropy with a target t is -sum_k t_k l_k: -mean(l) for the
uniform target, -l_k for a one-hot label, so that no one-hot target is ever built. The losses are sums over
outputs and means over galaxies, scalars in float32 under autocast as well. The Baseline is R = 1 with every
galaxy a member and no gate.

Arguments that all of them share: z_logits (n, R, K), K with the extension, and gate_logits (n, R), None for
a single output, whose term is then left out; member (n, R), bool: the outputs that a galaxy belongs to, at
least one; weight (n,), of mean 1 over the training galaxies, in the redshift outputs only; z_bin (n,),
int64: the bin of the label.
"""

import torch
from torch import Tensor


def mixture(z_logits: Tensor, gate_logits: Tensor | None) -> Tensor:
    """Probability of each redshift bin, (n, K): sum_i softmax(gate)_i softmax(logits_i), in float32."""
    pdf = torch.softmax(z_logits.float(), dim=-1)
    if gate_logits is None:
        if z_logits.shape[1] != 1:
            raise ValueError(f"{z_logits.shape[1]} redshift outputs need a gate; one alone does without")
        return pdf[:, 0]
    weights = torch.softmax(gate_logits.float(), dim=-1)
    # A product and a sum, not a matrix product: autocast would run that one in bfloat16.
    return (weights[:, :, None] * pdf).sum(dim=1)


def gate_cross_entropy(gate_logits: Tensor, member: Tensor) -> Tensor:
    """Cross-entropy of the gate with the normalised membership, mean over galaxies."""
    return _of_gate(gate_logits, member).mean()


def with_gate(loss: Tensor, gate_logits: Tensor | None, member: Tensor) -> Tensor:
    """Add the gate's term to a loss of the redshift outputs, where there is a gate."""
    return loss if gate_logits is None else loss + gate_cross_entropy(gate_logits, member)


def hard_label_loss(
    z_logits: Tensor, gate_logits: Tensor | None, z_bin: Tensor, member: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Loss of the Baseline and of Steps 1 and 2: one-hot labels and the gate's membership."""
    log_pdf = torch.log_softmax(z_logits, dim=2, dtype=torch.float32)
    at_label = log_pdf.gather(2, z_bin[:, None, None].expand(-1, log_pdf.shape[1], 1))[..., 0]
    return with_gate(_of_members(at_label, log_pdf, member, weight), gate_logits, member)


def soft_label_loss(z_logits: Tensor, gate_logits: Tensor | None, target: Tensor, member: Tensor) -> Tensor:
    """Loss of Step 3: soft and shifted labels (n, R, K), uniform ones included, and the gate's membership."""
    return with_gate(_of_labels(z_logits, target).mean(), gate_logits, member)


def soft_label_losses(
    z_logits: Tensor, gate_logits: Tensor | None, target: Tensor, member: Tensor, n_heads: int
) -> Tensor:
    """`soft_label_loss` of each of several heads, (n_heads,): as many galaxies of the first, of the next."""
    loss = _of_labels(z_logits, target)
    if gate_logits is not None:
        loss = loss + _of_gate(gate_logits, member)
    return loss.view(n_heads, -1).mean(dim=1)


def galaxy_label_loss(
    z_logits: Tensor, gate_logits: Tensor | None, label: Tensor, member: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Loss of one soft label (n, K) a galaxy in all its outputs, and the gate's membership."""
    log_pdf = torch.log_softmax(z_logits, dim=2, dtype=torch.float32)
    at_label = (label.float()[:, None] * log_pdf).sum(dim=2)
    return with_gate(_of_members(at_label, log_pdf, member, weight), gate_logits, member)


def _of_gate(gate_logits: Tensor, member: Tensor) -> Tensor:
    """Cross-entropy of the gate with the normalised membership, (n,)."""
    log_gate = torch.log_softmax(gate_logits, dim=1, dtype=torch.float32)
    target = member.float() / member.sum(dim=1, keepdim=True)
    return -(target * log_gate).sum(dim=1)


def _of_labels(z_logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the outputs with labels (n, R, K), summed over outputs, (n,)."""
    log_pdf = torch.log_softmax(z_logits, dim=2, dtype=torch.float32)
    return -(target.float() * log_pdf).sum(dim=(1, 2))


def _of_members(at_label: Tensor, log_pdf: Tensor, member: Tensor, weight: Tensor | None) -> Tensor:
    """Sum over outputs, mean over galaxies: the label's term (n, R) of members, the uniform one of others."""
    rows = torch.where(member, at_label, log_pdf.mean(dim=2)).sum(dim=1)
    return -(rows if weight is None else weight.float() * rows).mean()
