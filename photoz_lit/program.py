"""A trained model as one program, for who has torch, or ONNX Runtime, and not this package.

    program = torch.export.load("model.pt2").module()
    pdf = program(cutouts, ebv, r)  # (n, bands, pixels, pixels) in nanomaggies, (n,) and (n,) in mag

It gives p(z), (n, n_outputs), of any number of galaxies; all is float32, and NaN an unknown E(B-V) or r. It
computes in float32 whatever the hardware, and what finishes p(z) in double precision. It raises no flag: it
does not know what is unlike the training galaxies. `Program(photoz_lit.load("sdss_main").models)` is that of
an ensemble.
"""

import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from photoz_lit.config import TrainerConfig
from photoz_lit.errors import DataError
from photoz_lit.files import beside
from photoz_lit.inference import Predictor, Trained
from photoz_lit.models.encoders import reads
from photoz_lit.models.heads import mixture

INPUTS = ("inputs", "ebv", "r")


class Program(nn.Module):
    """p(z) of a model, or the mean of several; unfinished where a link has no form on tensors.

    The names of such links are in `left_out`. ConfigError or DataError where a model reads vectors.
    """

    def __init__(self, models: Sequence[Trained]) -> None:
        super().__init__()
        trainer = TrainerConfig(accelerator="cpu", precision="32-true")
        kind, self.shape = inputs_read(models[0])
        self.branches = Predictor(models, kind, self.shape, trainer=trainer).branches
        members = [(head, chain) for branch in self.branches for head, chain, _ in branch.members]
        self.parts = nn.ModuleList([*(b.encoder for b in self.branches), *(head for head, _ in members)])
        self.chains = [chain.on_tensors() if chain else [] for _, chain in members]
        self.left_out = sorted({name for chain in self.chains for name, form in chain if form is None})

    def forward(self, inputs: Tensor, ebv: Tensor, r: Tensor) -> Tensor:
        """Map inputs as the model reads them, E(B-V) and r (n,), mag, to p(z) (n, n_outputs)."""
        pdfs: list[Tensor] = []
        made = {kind: kind(inputs, None) for kind in dict.fromkeys(b.inputs for b in self.branches)}
        for branch in self.branches:
            embedding = branch.encoder(made[branch.inputs], torch.nan_to_num(ebv)).float()
            for head, _, _ in branch.members:
                pdf = mixture(*head(embedding)).double()
                for _, form in self.chains[len(pdfs)]:
                    if form is not None and not self.left_out:
                        pdf = form(pdf, r.double())
                pdfs.append(pdf.float())
        return torch.stack(pdfs).mean(dim=0)

    def recorded(self) -> torch.export.ExportedProgram:
        """Return what `torch.export` makes of it, without the names of files of this machine."""
        example = torch.zeros(2, *self.shape), torch.zeros(2), torch.full((2,), 17.0)
        self.eval()(*example)  # what is made once is made before it is recorded
        sizes = {name: {0: torch.export.Dim("n")} for name in INPUTS}
        program = torch.export.export(self, example, dynamic_shapes=sizes)
        for module in program.graph_module.modules():
            for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
                node.meta.pop("stack_trace", None)
        return program


def inputs_read(model: Trained) -> tuple[str, tuple[int, ...]]:
    """Return the kind of inputs that a model reads and the shape of one galaxy's."""
    s, kinds = model.config.survey, reads(model.config.encoder.name)
    if "images" in kinds:
        return "images", (len(s.bands), s.pixels, s.pixels)
    if "features" in kinds:
        return "features", (2, len(getattr(model.config.data, "magnitudes", []) or s.bands))
    raise DataError(f"{model.folder} reads vectors: programs are of images or magnitudes")


def write_torch(path: Path, recorded: torch.export.ExportedProgram) -> None:
    """Write a program for `torch.export.load`."""
    buffer = io.BytesIO()  # a path would be written into it
    torch.export.save(recorded, buffer)
    with beside(path) as partial:
        partial.write_bytes(buffer.getvalue())


def write_onnx(path: Path, recorded: torch.export.ExportedProgram) -> None:
    """Write a program for ONNX Runtime; DataError where onnxscript is missing or knows no way."""
    aten = torch.ops.aten
    unknown = {aten.hypot.default: lambda a, b: (a * a + b * b).sqrt(), aten.median.dim: _lower_median}
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise DataError("onnxscript is not installed: type pip install 'photoz_lit[onnx]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own workings
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            plain = recorded.run_decompositions(unknown)
            found = torch.onnx.export(plain, dynamo=True, output_names=["pdf"], verbose=False)
            assert found is not None
        with beside(path) as partial:
            found.save(partial)
    except Exception as error:  # it raises many kinds
        raise DataError(f"ONNX has no words for this network ({type(error).__name__})") from error


def _lower_median(values: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    found, place = values.topk(values.shape[dim] // 2 + 1, dim=dim)
    return found.select(dim, -1), place.select(dim, -1)


WRITERS = {"torch": ("model.pt2", write_torch), "onnx": ("model.onnx", write_onnx)}
