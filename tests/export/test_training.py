"""Samples and training: determinism, resumption, what the losses ask for, and the measures."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from assets.paths import generator_file, pnorm_file
from assets.perceptual import stlpips
from export.__main__ import main as export_main
from export.generator import load_generator
from export.samples import latents, shard_path, styles
from export.training import identity_loss
from export.training.image_loss import RenderedLoss, sample_by_sample
from export.training.regression import Regression
from export.training.tasks import Task, TrainingError, load_samples
from export.training.training import TrainingPlan, TrainingRun, batches
from networks.descriptor import Descriptor
from networks.detail import Detail
from networks.encoder import Encoder, residual_body
from networks.learned_file import learned_metadata
from networks.pnorm import load_pnorm
from networks.similarity import IDENTITY

pytestmark = pytest.mark.skipif(not generator_file("ffhq").exists(), reason="the generator is not built: make invert")
CPU = torch.device("cpu")
# No test changes them.
generator, perceptual = cache(load_generator), cache(stlpips)


def recipe(**changes: object) -> TrainingPlan:
    options: dict[str, object] = {
        "domain": "ffhq", "network": "encoder", "cut": 8, "body": "residual", "loss": "latents", "steps": 6, "batch": 4,
        "learning_rate": 1e-3, "perceptual_weight": 1.0, "identity_weight": 0.0, "seed": 0,
    }  # fmt: skip
    return TrainingPlan(**{**options, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with true latents and made-up images: what training reads, without the cost of rendering."""
    from safetensors.torch import save_file

    root, ffhq = tmp_path_factory.mktemp("samples"), generator("ffhq")
    for split in ("train", "heldout"):
        tensors = {k: v[:16].clone() for k, v in latents(split, 0, ffhq).items()}
        f = ffhq.synthesis.coarse(styles(**tensors)[:, : ffhq.synthesis.coarse_styles(8)], cut=8)
        image = F.interpolate(f[:, :3], size=256, mode="bilinear").mul(40).add(128).clamp(0, 255).to(torch.uint8)
        tensors["image"] = image.permute(0, 2, 3, 1).contiguous()
        save_file(tensors, shard_path(root, split, 0))
    return root


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure no rendered images, whose measures have tests of their own; load networks once, and train a thin one."""
    monkeypatch.setattr("export.training.tasks.MEASURED", 1)
    for module in ("tasks", "image_loss"):
        monkeypatch.setattr(f"export.training.{module}.stlpips", perceptual)
    monkeypatch.setattr("networks.encoder.residual_body", partial(residual_body, widths=(48, 128), blocks=(1, 1)))


@pytest.fixture
def without_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Task, "measure", lambda _: {"f": 1.0, "moved_f": 1.0})


def small_detail() -> Detail:
    torch.manual_seed(0)
    return Detail(cut=8, count=14, rank=8)


def task(folder: Path, *, network: str = "encoder", loss: str = "latents", seed: int = 0) -> Task:
    torch.manual_seed(seed)
    made = Task(
        network=network, loss=loss, generator=generator("ffhq"), encoder=Encoder(cut=8), samples=folder,
        detail=None if network == "encoder" else small_detail(), pnorm=load_pnorm(pnorm_file("ffhq")),
        perceptual_weight=1.0, identity_weight=0.0, seed=seed, device=CPU, compiled=False,
    )  # fmt: skip
    made.measure_statistics()
    made.start()
    return made


def trainer(folder: Path, checkpoints: Path, **changes: object) -> TrainingRun:
    options = recipe(**changes)
    made = task(folder, network=options.network, loss=options.loss, seed=options.seed)
    return TrainingRun(options, made, folder=checkpoints)


def test_batches_continue_where_they_stopped() -> None:
    def take(start: int, count: int) -> list[list[int]]:
        stream = batches(10, batch=3, seed=1, start=start)
        return [next(stream).tolist() for _ in range(count)]

    whole = take(0, 9)
    assert take(4, 5) == whole[4:]
    assert whole[:3] != whole[3:6]
    for epoch in (whole[:3], whole[3:6], whole[6:]):
        assert len({index for batch in epoch for index in batch}) == 9


@pytest.mark.usefixtures("without_rendering")
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.training.training.plot", lambda *_: None)
    whole = trainer(folder, tmp_path / "whole")
    whole.fit(every=3)
    assert [p["step"] for p in whole.history] == [3, 6]

    class Killed(Exception):
        pass

    cut_short = trainer(folder, tmp_path / "parts")
    save = cut_short.save

    def save_and_die() -> None:
        save()
        raise Killed

    cut_short.save = save_and_die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        cut_short.fit(every=3)
    resumed = trainer(folder, tmp_path / "parts")
    resumed.resume()
    assert resumed.step == 3
    resumed.fit(every=3)
    for name, network in resumed.task.trained.items():
        expected = whole.task.trained[name].state_dict()
        for ours, theirs in zip(network.state_dict().values(), expected.values(), strict=True):
            assert torch.allclose(ours.float(), theirs.float(), atol=1e-5)


@pytest.mark.usefixtures("without_rendering")
def test_training_learns_and_draws_its_curve(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = trainer(folder, tmp_path, steps=80, learning_rate=5e-3)
    run.fit(every=20)
    losses = [point["loss"] for point in run.history]
    assert losses[-1] < 0.7 * losses[0]
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")


def test_a_head_learns_images_with_the_encoder_as_it_is(folder: Path) -> None:
    made = task(folder, network="detail", loss="image")
    made.loss(torch.arange(1), 0).backward()
    assert made.detail is not None
    for layer in (made.detail.hidden, made.detail.styles):
        assert layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0
    for still in (made.encoder, made.detail.backbone):
        assert all(p.grad is None for p in still.parameters())


def test_together_both_get_gradients_and_half_the_styles_are_true(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = task(folder, network="both", loss="image")
    seen: list[torch.Tensor] = []
    still: list[bool] = []

    def loss(f: torch.Tensor, w: torch.Tensor, image: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        seen.append(w.detach())
        still.append(torch.equal(theta[0], IDENTITY))
        return f.square().mean(dim=(1, 2, 3)) + w.square().mean(dim=(1, 2)) + image.mean()

    monkeypatch.setattr(made, "image_loss", loss)
    made.loss(torch.arange(4), 0).backward()
    true = made.train.w_plus(torch.arange(4))[:, made.generator.synthesis.coarse_styles(8) :]
    assert [torch.equal(w[0], t) for w, t in zip(seen, true, strict=True)] == [False, False, True, True]
    assert still == [True, False, True, False]
    for network in made.trained.values():
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_gradients_sample_by_sample_are_those_of_the_batch() -> None:
    x, y = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)

    def loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * b).sin().sum(dim=1)

    value = sample_by_sample(loss, (x,), y)
    (value * 2).backward()
    expected = x.detach().requires_grad_()
    whole = loss(expected, y).mean()
    (whole * 2).backward()
    assert value.item() == pytest.approx(whole.item())
    assert x.grad is not None and expected.grad is not None
    assert torch.allclose(x.grad, expected.grad)


def test_least_squares_find_a_linear_truth(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when killed on the way."""
    made = task(folder, network="detail")
    made.detail = Detail(cut=8, count=2, rank=8)
    count, features = 60, len(made.detail.mean)
    made.train.image = torch.zeros(count, 1)
    rng = torch.Generator().manual_seed(0)
    factors = torch.randn(count, 6, generator=rng)
    x = factors @ torch.randn(6, features, generator=rng) + 3
    y = (factors @ torch.randn(6, 2 * 512, generator=rng)).view(count, 2, 512) + 1
    seen: list[int] = []

    def batch(index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.extend(index.tolist())
        if len(seen) == 48:
            raise KeyboardInterrupt
        return x[index], y[index]

    monkeypatch.setattr(made, "features", batch)
    monkeypatch.setattr(made, "measure", dict)

    def run() -> Regression:
        regression = Regression(made, folder=tmp_path, batch=8, identity={"seed": 0})
        regression.resume()
        return regression

    with pytest.raises(KeyboardInterrupt):
        run().fit(every=2)
    run().fit(every=2)
    assert seen == [*range(48), *range(32, 60)]
    assert made.detail(torch.zeros(1, 3, 256, 256)).shape == (1, 2, 512)
    found = made.detail.of_features(x)
    assert (found - y).square().mean() < 0.01 * y.var()
    with pytest.raises(TrainingError, match="other options"):
        Regression(made, folder=tmp_path, batch=8, identity={"seed": 1}).resume()


@pytest.mark.usefixtures("without_rendering")
def test_a_checkpoint_of_another_run_is_refused(folder: Path, tmp_path: Path) -> None:
    trainer(folder, tmp_path).fit(every=6)
    with pytest.raises(TrainingError, match="other options"):
        trainer(folder, tmp_path, seed=1).resume()


@pytest.mark.parametrize(
    ("option", "value"), [("steps", 0), ("batch", 0), ("learning_rate", 0.0), ("loss", "f"), ("network", "E")]
)
def test_options_out_of_range_are_refused(option: str, value: object) -> None:
    with pytest.raises(TrainingError, match="expected"):
        recipe(**{option: value})


def test_a_batch_larger_than_the_data_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="16 samples do not fill a batch of 17"):
        trainer(folder, tmp_path, batch=17)


@pytest.mark.usefixtures("without_rendering")
def test_stages_are_reported_in_order(folder: Path, tmp_path: Path) -> None:
    def train(*extra: str) -> str:
        arguments = ["train", "encoder", "--cut", "8", "--steps", "2", "--batch", "4", "--samples", str(folder)]
        assert export_main([*arguments, "--weights", str(tmp_path), *extra]) == 0
        return learned_metadata(tmp_path / "encoder8.safetensors")["training"]

    assert train("--folder", str(tmp_path / "1")).count("loss `latents`") == 1
    second = ["--start", "--folder", str(tmp_path / "2")]
    assert train(*second).count("loss `latents`") == 2
    assert "stage 2" in (tmp_path / "encoder8.md").read_text()
    with pytest.raises(AssertionError):  # the start is another file now
        train(*second)


@pytest.mark.usefixtures("without_rendering")
def test_a_head_through_images_needs_an_encoder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "detail", "--cut", "8", "--loss", "image", "--steps", "1", "--batch", "1"]
    assert export_main([*arguments, "--samples", str(folder), "--weights", str(tmp_path)]) == 1
    assert "encoder8.safetensors" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_samples_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="python -m export samples"):
        load_samples(tmp_path, "train")


def test_the_measures_are_one_for_the_mean_and_zero_for_the_truth(folder: Path) -> None:
    made = task(folder, network="both", loss="image")
    # What is rendered says nothing here.
    made.image_loss.render = lambda f, _: torch.zeros(len(f), 3, 256, 256)  # type: ignore[method-assign]
    made.vgg = torch.nn.PairwiseDistance()  # type: ignore[assignment]
    f, w = made._truth(torch.arange(16), made.heldout)
    norm = made.encoder.normalise
    answers: dict[str, torch.Tensor] = {}

    def of(name: str, image: torch.Tensor) -> torch.Tensor:
        given = answers[name]
        return given if len(given) == len(image) else given[: len(image)]

    made._f = lambda image: of("f", image)  # type: ignore[method-assign]
    made._w = lambda image: of("w", image)  # type: ignore[method-assign]
    answers |= {"f": f, "w": w}
    right = made.measure()
    assert right["f"] == pytest.approx(0, abs=1e-6)
    assert right["styles"] == pytest.approx(0, abs=1e-6)
    assert right["moved_f"] > 0.1
    answers |= {"f": f.mean(dim=0, keepdim=True).expand_as(f), "w": w.mean(dim=0, keepdim=True).expand_as(w)}
    wrong = made.measure()
    assert wrong["f_map"] == pytest.approx(1, rel=1e-3)
    assert wrong["styles"] == pytest.approx(1, rel=1e-3)
    means = norm(f).mean(dim=(0, 2, 3))[:, None, None]
    answers |= {"f": made.encoder.denormalise(means).expand_as(f)}
    assert made.measure()["f"] == pytest.approx(1, rel=1e-3)


def test_the_image_loss_is_least_for_the_truth(folder: Path) -> None:
    ffhq = generator("ffhq")
    data = load_samples(folder, "heldout").w_plus(torch.arange(2))
    f, w = ffhq.synthesis.coarse(data[:, :2], cut=8), data[:, 2:]
    image = RenderedLoss(ffhq, perceptual_weight=1.0, device=CPU)
    with torch.no_grad():
        target = image.render(f[:1], w[:1])
    wrong = (0.5 * f[:1]).requires_grad_()
    assert image(f[:1], w[:1], target, IDENTITY[None]) < 1e-4
    value = image(wrong, w[:1], target, IDENTITY[None])
    value.backward()
    assert value > 0.01
    assert wrong.grad is not None and wrong.grad.abs().sum() > 0


def test_identity_counts_by_its_weight(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_loss, "descriptor", lambda: Descriptor().eval().requires_grad_(requires_grad=False))
    ffhq = generator("ffhq")
    data = load_samples(folder, "heldout")
    w_plus = data.w_plus(torch.arange(1))
    f, w = ffhq.synthesis.coarse(w_plus[:, :2], cut=8), w_plus[:, 2:]
    target = data.image[1:2].float() / 127.5 - 1
    plain = RenderedLoss(ffhq, perceptual_weight=1.0, device=CPU)
    known = RenderedLoss(ffhq, perceptual_weight=1.0, identity_weight=2.0, device=CPU)
    assert plain.identity is None
    assert known.identity is not None
    with torch.no_grad():
        distance = known.identity(known.render(f, w), target, IDENTITY[None])
        more = known(f, w, target, IDENTITY[None]) - plain(f, w, target, IDENTITY[None])
    assert distance > 0
    torch.testing.assert_close(more, 2 * distance, atol=1e-4, rtol=1e-3)
