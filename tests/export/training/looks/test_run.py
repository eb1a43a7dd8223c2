from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export.training.looks.critic import CodeCritic, Critic
from export.training.looks.draws import Batches
from export.training.looks.faces import Faces
from export.training.looks.run import Run, Trainer
from export.training.looks.weights import (
    StartError,
    measure_statistics,
    read_parts,
    renamed,
    start_from,
    start_states,
    write_parts,
)
from networks.generator_file import Generator
from networks.looks import TwoLooks
from networks.short_head import ShortHead
from tests.export.training.looks.test_step import large, make

RUN = Run(minutes=1e6, steps=2, batch=2, code_steps=2, code_batch=2, log_steps=1)


def trainer(generator: Generator, faces: Faces, folder: Path, run: Run) -> Trainer:
    torch.manual_seed(0)
    step = make(generator, TwoLooks(), critic=Critic(8), code_critic=CodeCritic(width=8))
    directions = torch.randn(3, 16, 512, generator=torch.Generator().manual_seed(9))
    return Trainer(step, Batches(generator, [(faces, 1.0)], directions, large), run, folder=folder, say=str)


def test_a_killed_run_continues_where_it_was(generator: Generator, faces: Faces, tmp_path: Path) -> None:
    whole = trainer(generator, faces, tmp_path / "whole", RUN)
    whole.fit()
    # Two calls, the first of which ends early; the step size does not follow the steps here.
    first = trainer(generator, faces, tmp_path / "parts", RUN)
    for _ in range(2):
        first._codes()
    first._main()
    first.save()
    second = trainer(generator, faces, tmp_path / "parts", RUN)
    assert second.resume()
    assert (second.codes_done, second.done, second.seen) == (2, 1, 2)
    second.fit()
    for name, network in whole.networks.items():
        for part, value in network.state_dict().items():
            assert torch.equal(value, second.networks[name].state_dict()[part]), part
    for part, value in whole.averaged["looks"].state_dict().items():
        assert torch.equal(value, second.averaged["looks"].state_dict()[part]), part
    for name in ("critic", "code_critic"):
        for part, value in whole.critics[name].state_dict().items():
            assert torch.equal(value, second.critics[name].state_dict()[part]), part
    assert second.done == 2
    assert [h["kind"] for h in second.history] == ["codes"] * 2 + ["step"] * 2


def test_frozen_parts_and_norms_stay(generator: Generator, faces: Faces, tmp_path: Path) -> None:
    run = replace(RUN, steps=1, code_steps=0)
    t = trainer(generator, faces, tmp_path, run)
    before = {k: v.clone() for k, v in t.step.looks.state_dict().items()}
    t.fit()
    after = t.step.looks.state_dict()
    changed = {k for k, v in after.items() if not torch.equal(v, before[k])}
    assert changed
    assert not [k for k in changed if k.startswith("second.at64.")]
    assert not [k for k in changed if "running" in k]


def test_codes_teach_all_looks_where_none_is_frozen(generator: Generator, faces: Faces, tmp_path: Path) -> None:
    for frozen, taught in ((RUN.frozen, {"coarse_look"}), ((), {"coarse_look", "first", "second"})):
        t = trainer(generator, faces, tmp_path / str(len(taught)), replace(RUN, frozen=frozen, code_steps=1, steps=1))
        before = {name: p.detach().clone() for name, p in t.step.looks.named_parameters()}
        t._codes()
        changed = {n.split(".")[0] for n, p in t.step.looks.named_parameters() if not torch.equal(p, before[n])}
        assert changed == taught
        assert {"f_coarse", "w_coarse"} <= set(t.history[-1])
        assert ("f2" in t.history[-1]) == (not frozen)


def test_a_run_leaves_weights_to_start_from(generator: Generator, faces: Faces, tmp_path: Path) -> None:
    t = trainer(generator, faces, tmp_path, replace(RUN, steps=1, code_steps=0))
    t.fit()
    looks = TwoLooks()
    assert start_from(looks, read_parts(tmp_path, "looks")) == []
    kept = t.averaged["looks"].state_dict()
    for name, value in looks.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value, kept[name], rtol=1e-3, atol=1e-3), name


def test_a_run_starts_from_the_weights_of_another(tmp_path: Path) -> None:
    write_parts(TwoLooks(), tmp_path, "looks")
    write_parts(ShortHead(), tmp_path, "head")
    states = start_states(tmp_path, "ffhq")
    assert states is not None
    assert start_from(TwoLooks(), states[0]) == []
    assert start_from(ShortHead(), states[1]) == []


def test_weights_come_in_parts(tmp_path: Path) -> None:
    files = write_parts(ShortHead(), tmp_path, "head", limit=1_000_000)
    assert len(files) > 2
    assert max(file.stat().st_size for file in files) < 2_000_000
    assert start_from(ShortHead(), read_parts(tmp_path, "head")) == []


def test_earlier_names_are_understood() -> None:
    earlier = {
        "first.stem.0.0.weight": 1, "first.at16.2.a.1.bias": 2, "again.map.weight": 3, "again.coarse.weight": 4,
        "again.small.0.0.weight": 5, "again.pool.1.weight": 6, "f_mean": 7, "a.0.weight": 8, "scale_in.bias": 9,
    }  # fmt: skip
    assert renamed({k: torch.tensor(v) for k, v in earlier.items()}).keys() == {
        "first.at64.0.0.weight", "first.at16.2.conv1.1.bias", "second.read_f.weight", "second.at4.0.0.weight",
        "second.pooled.1.weight", "f_mean", "conv1.0.weight", "enter_scale.bias",
    }  # fmt: skip
    names = set(TwoLooks().state_dict())
    assert {"first.at64.0.0.weight", "first.at16.2.conv1.1.bias", "second.read_f.weight"} <= names
    with pytest.raises(StartError, match="lack"):
        start_from(ShortHead(), {})
    with pytest.raises(StartError, match="do not fit"):
        start_from(ShortHead(), {"enter.bias": torch.zeros(3)})


def test_statistics_normalise_the_generators_codes(generator: Generator) -> None:
    looks = TwoLooks()
    measure_statistics(looks, generator, torch.Generator().manual_seed(0), batches=2)
    w = generator.mapping(torch.randn(64, 512))[:, None].expand(-1, 4, -1)
    f = looks.normalise_f(generator.synthesis.coarse(w, cut=16))
    assert abs(float(f.mean())) < 0.2
    assert 0.4 < float(f.std()) < 2.0
