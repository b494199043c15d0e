"""A model as a program, against what `photoz_lit.load(...).predict` says of the same galaxies."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Finished, only, parsed, run, run_well
from numpy.typing import NDArray

from photoz_lit.api import Model
from photoz_lit.config import TrainerConfig
from photoz_lit.config.folders import PRETRAINED
from photoz_lit.errors import DataError
from photoz_lit.inference import Trained, open_model
from photoz_lit.models.encoders import ENCODERS, reads
from photoz_lit.network import build
from photoz_lit.program import INPUTS, Program, write_onnx

MAIN = PRETRAINED / "sdss_main"
EXACT = TrainerConfig(accelerator="cpu", precision="32-true")
Columns = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def drawn(n: int, pixels: int = 64) -> Columns:
    """Draw round galaxies on noise, E(B-V) and r, which lies on edges of slices, beyond them or nowhere."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:pixels, :pixels] - (pixels - 1) / 2
    width, peak = rng.uniform(2, 5, (n, 1, 1, 1)), rng.uniform(0.3, 3, (n, 5, 1, 1))
    cutouts = peak * np.exp(-(x**2 + y**2) / 2 / width**2) + rng.normal(0, 0.02, (n, 5, pixels, pixels))
    r = np.resize([12.5, 17.1, np.nan, 14.0, 25.0, 11.0, 16.4999], n)
    return cutouts.astype(np.float32), rng.uniform(0, 0.3, n).astype(np.float32), r.astype(np.float32)


def predicted(models: list[Trained], columns: Columns) -> NDArray[np.float32]:
    return Model(models, EXACT).predict(*columns).pdf


def test_it_is_the_model_its_finishing_inside() -> None:
    models, columns = [open_model(MAIN / name) for name in "12"], drawn(9)
    assert [name for name, _ in models[0].chain.links] == ["pit", "response"]
    program = Program(models)
    with torch.inference_mode():
        pdf = program(*map(torch.from_numpy, columns)).numpy()
    np.testing.assert_allclose(pdf, predicted(models, columns), atol=1e-6)
    np.testing.assert_allclose(pdf.sum(axis=1), 1, atol=1e-5)
    assert program.left_out == []


@pytest.mark.slow
def test_torch_alone_loads_it(tmp_path: Path) -> None:
    run_well("stage=export", f"model={MAIN / '1'}", f"output_dir={tmp_path}", "run=out")
    folder, columns = tmp_path / "out" / "export" / "1", drawn(9)
    np.savez(tmp_path / "columns.npz", *columns)
    script = f"""
import sys
import numpy as np, torch
with np.load({str(tmp_path / "columns.npz")!r}) as file:
    columns = [torch.from_numpy(file[name]) for name in file.files]
program = torch.export.load({str(folder / "model.pt2")!r}).module()
for n in (9, 1, 0):
    pdf = program(*(column[:n] for column in columns)).detach().numpy()
    np.save({str(tmp_path)!r} + f"/{{n}}.npy", pdf)
print("photoz_lit" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
    expected = predicted([open_model(MAIN / "1")], columns)
    for n in (9, 1, 0):
        np.testing.assert_allclose(np.load(tmp_path / f"{n}.npy"), expected[:n], atol=1e-5)
    with zipfile.ZipFile(folder / "model.pt2") as archive:
        for name in archive.namelist():
            assert b"photoz_lit/" not in archive.read(name), f"{name} names files of this machine"
    assert "`model.pt2`." in (folder / "card.md").read_text()
    # Once more from there, without programs: what the card says is said once, and of what is there.
    run_well("stage=export", f"model={folder}", f"output_dir={tmp_path}", "run=again", "export.programs=[]")
    again = tmp_path / "again" / "export" / "1"
    assert not (again / "model.pt2").exists()
    assert (again / "card.md").read_text() == (MAIN / "1" / "card.md").read_text()


def made(name: str, folder: Path) -> Trained:
    """Return an encoder with its first weights as if it were trained, without finishing."""
    config = parsed("stage=representation", f"encoder={name}", "survey.n_bins=20", "survey.pixels=50")
    kind = reads(name)[0]
    net = build(config, kind, (0, 5, 50, 50) if kind == "images" else (0, 2, 5))
    with torch.no_grad():
        for values in net.head.parameters():
            values.normal_(generator=torch.Generator().manual_seed(1))
    shutil.copyfile(MAIN / "1" / "priors.npz", folder / "priors.npz")
    return Trained(folder, folder / "model.ckpt", config, net.state_dict(), "", {})


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name in ENCODERS if reads(name)[0] != "vectors"))
def test_every_encoder_has_one(name: str, tmp_path: Path) -> None:
    program = Program([made(name, tmp_path)])
    cutouts, ebv, r = (torch.from_numpy(values) for values in drawn(5, 50))
    inputs = cutouts if program.shape[0] == 5 else 18 + cutouts[:, :2, :5, 0]
    recorded = program.recorded().module()
    with torch.inference_mode():
        torch.testing.assert_close(recorded(inputs, ebv, r), program(inputs, ebv, r), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_a_link_without_a_form_leaves_p_of_z_unfinished_and_the_card_says_so(
    catalogue_run: Finished, tmp_path: Path
) -> None:
    copied = catalogue_run.copy(tmp_path)
    run_well("stage=classifier", "correction=local_pit", *copied.words)
    folder = only(copied.folder / "runs", "classifier/correction=local_pit*/done.json").parent
    program = Program([open_model(folder)])
    assert program.left_out == ["pit"]
    run_well("stage=export", f"model={folder}", f"output_dir={tmp_path}", "run=out")
    card = only(tmp_path, "out/export/*/card.md").read_text()
    assert "`model.pt2`, not finished: pit has no such form." in card


def test_of_vectors_there_is_none(tmp_path: Path) -> None:
    words = ("data=embeddings", "data.path=t.csv", "data.images=v.npy")
    config = parsed("stage=representation", "encoder=precomputed", *words)
    with pytest.raises(DataError, match="reads vectors: programs are of images or magnitudes"):
        Program([Trained(tmp_path, tmp_path, config, {}, "", {})])


def test_a_program_that_there_is_not_is_named() -> None:
    outcome = run("stage=export", "model=sdss_main", "export.programs=[tensorflow]")
    assert "export.programs=tensorflow is not valid" in outcome.message


@pytest.mark.slow
def test_onnx_runtime_gives_the_same(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, columns = open_model(MAIN / "1"), drawn(9)
    write_onnx(tmp_path / "model.onnx", Program([model]).recorded())
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    for n in (9, 1):
        (pdf,) = session.run(["pdf"], {k: v[:n] for k, v in zip(INPUTS, columns, strict=True)})
        np.testing.assert_allclose(pdf, predicted([model], columns)[:n], atol=1e-5)


def test_without_onnxscript_what_to_install_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    program = torch.export.export(torch.nn.ReLU(), (torch.zeros(2),))
    with pytest.raises(DataError, match=r"pip install 'photoz_lit\[onnx\]'"):
        write_onnx(tmp_path / "model.onnx", program)
