# SPDX-License-Identifier: Apache-2.0
"""A training run that was stopped and resumed equals an undisturbed one, byte for byte.

The state of an optimizer must have the memory layout of its parameters: torch's fused steps
iterate over both in memory order.
"""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
import tiny_people
import torch
from accelerate import Accelerator, debug_launcher
from accelerate.state import AcceleratorState, PartialState
from transformers import ConvNextConfig, ConvNextModel, ResNetConfig, ResNetModel

from viewsynth import config
from viewsynth.commands import train
from viewsynth.reid import backbones, methods, saved, scratch, validation
from viewsynth.training import checkpoints, loop
from viewsynth.training.average import Average
from viewsynth.training.options import Optimization
from viewsynth.training.rows import Plan, RowTask

MODELS = {
    "basic": lambda: ResNetModel(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ),
    "bottleneck": lambda: ResNetModel(
        ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1])
    ),
    "convnext": lambda: ConvNextModel(ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1] * 4)),
}
GPU = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ],
)


@pytest.fixture(scope="module")
def cargo(tmp_path_factory):
    return tiny_people.cargo(tmp_path_factory.mktemp("data") / "CARGO", 8)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, make in MODELS.items():
        torch.manual_seed(0)
        make().save_pretrained(folder / name)
    tiny_people.vit(folder / "vit")
    return folder


def run(cargo, models, output, *options) -> None:
    given = [
        "--data.name",
        "cargo",
        "--data.root",
        cargo,
        "--model.size",
        64,
        32,
        "--people",
        4,
        "--pictures",
        2,
        "--steps",
        4,
        "--every",
        2,
        "--optim.rate",
        "1e-2",
        "--optim.warmup",
        0,
        "--device",
        "cpu",
        "--cache",
        models / "cache",
        "--output",
        output,
        *options,
    ]
    assert train.run(config.parse(train.Config, [str(token) for token in given], "train")) == 0


def content(output) -> dict[str, bytes]:
    """Weights and logs of a run."""
    files = [path for path in output.rglob("*") if path.is_file()]
    about = ("run.json", "config.yaml")  # contain host and folder
    return {p.relative_to(output).as_posix(): p.read_bytes() for p in files if p.name not in about}


def stopped(whole, output) -> None:
    """A copy of a run as if it had been stopped half way."""
    shutil.copytree(whole, output)
    shutil.rmtree(output / "checkpoint-4")
    shutil.rmtree(output / "model")


# ---- whole runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("average", [0, 0.5])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(
    "backbone", ["small", "small_vit", "basic", "bottleneck", "convnext", "vit"]
)
def test_stopped_is_undisturbed(cargo, models, tmp_path, backbone, optimizer, average):
    name = backbone if backbone in scratch.SCRATCH else models / backbone
    options = ["--model.backbone", name, "--optim.optimizer", optimizer]
    options += ["--optim.average", average, "--data.validation", 0]
    run(cargo, models, tmp_path / "whole", *options)
    stopped(tmp_path / "whole", tmp_path / "stopped")
    run(cargo, models, tmp_path / "stopped", *options)
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")


def two_processes(cargo, models, output) -> None:
    PartialState._reset_state()  # this process was forked from one that had it
    AcceleratorState._reset_state()
    torch.set_num_threads(1)
    options = ("--optim.optimizer", "adamw", "--optim.average", 0.5, "--data.validation", 0)
    run(cargo, models, output / "whole", *options)
    if PartialState().is_main_process:
        stopped(output / "whole", output / "stopped")
    PartialState().wait_for_everyone()
    run(cargo, models, output / "stopped", *options)


@pytest.mark.slow
def test_stopped_is_undisturbed_in_two_processes(cargo, models, tmp_path):
    debug_launcher(two_processes, (cargo, models, tmp_path), num_processes=2)
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")


def test_a_deleted_best_model_is_restored(cargo, models, tmp_path, capsys):
    """The models after the stop are not better than the deleted one."""
    run(cargo, models, tmp_path / "whole", "--data.validation", 0.3)
    rows = [json.loads(row) for row in (tmp_path / "whole" / "log.jsonl").open()]
    assert rows[0]["val_mAP"] == 1, "the first one is the best, of people of one colour each"
    stopped(tmp_path / "whole", tmp_path / "stopped")
    run(cargo, models, tmp_path / "stopped", "--data.validation", 0.3)
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")
    for name in ("model", "checkpoint-2"):
        shutil.rmtree(tmp_path / "stopped" / name)
    run(cargo, models, tmp_path / "stopped", "--data.validation", 0.3)
    assert "that of step 4 takes its place" in capsys.readouterr().err
    assert saved.load(tmp_path / "stopped" / "model")[1]["step"] == 4


def test_the_best_value_is_that_of_the_saved_model(tmp_path):
    launcher = Accelerator(cpu=True)

    def best(rows: list[dict]) -> float:
        return validation.best_so_far(tmp_path, rows, None, None, launcher)

    rows = [{"step": 2, "val_mAP": 0.9}, {"step": 3}, {"step": 4, "val_mAP": 0.5}]
    assert best([]) == -1
    assert best(rows) == -1, "no model, no checkpoint"
    (tmp_path / "model").mkdir()
    for step, bar in ((2, 0.9), (4, 0.5), (6, 0.9)):  # 6 comes after the newest checkpoint
        told = {saved.MARK: "1", "about": {"step": step}}
        (tmp_path / "model" / saved.CONFIG).write_text(json.dumps(told))
        assert best(rows) == bar


class Squares:
    """Losses for the shared loop: the network's output on noise is to be zero."""

    def __call__(self, model, average, rows, draws) -> dict[str, torch.Tensor]:
        images = draws.normal(3, 16, 12).contiguous(memory_format=torch.channels_last)
        return {"square": model(images).square().mean()}


@pytest.mark.parametrize("average", [0.0, 0.5])
def test_the_shared_loop(tmp_path, average):
    settings = Optimization(steps=6, batch=4, warmup=0, rate=1e-2, average=average)
    task = RowTask(Plan(settings, 8, 0, str), Squares())

    def learnt(run: str, tell=None) -> dict[str, torch.Tensor]:
        model = network("cpu", torch.channels_last, plain=True)
        launcher = Accelerator(cpu=True)
        found = loop.learn(model, task, loop.Run(tmp_path / run, launcher, 3, tell))
        assert {p.stride() for p in found.parameters()} == {p.stride() for p in model.parameters()}
        return found.state_dict()

    def stop(step: int, figures: dict) -> None:
        if step == 5:
            raise KeyboardInterrupt

    whole = learnt("whole")
    with pytest.raises(KeyboardInterrupt):
        learnt("stopped", stop)
    again = learnt("stopped")
    assert all(torch.equal(value, again[key]) for key, value in whole.items())
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")


# ---- optimizers ----------------------------------------------------------------------------------


def network(device: str, layout: torch.memory_format, plain: bool = False) -> torch.nn.Module:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 7), torch.nn.Conv2d(8, 8, 3)]
    layers += [] if plain else [torch.nn.BatchNorm2d(8)]
    layers += [torch.nn.Conv2d(8, 4, 1), torch.nn.Flatten(), torch.nn.Linear(4 * 8 * 4, 5)]
    return torch.nn.Sequential(*layers).to(device, memory_format=layout)


def optimizer_of(model: torch.nn.Module, kind: str, fused: bool) -> torch.optim.Optimizer:
    groups = methods.groups(model, 1e-2)
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=1e-2, fused=fused)
    return torch.optim.SGD(groups, lr=1e-2, momentum=0.9, fused=fused)


def step(model: torch.nn.Module, optimizer, seed: int) -> None:
    first = next(model.parameters())
    images = torch.randn(4, 3, 16, 12, generator=torch.Generator().manual_seed(seed))
    images = images.to(first.device)
    if not first.is_contiguous():
        images = images.contiguous(memory_format=torch.channels_last)
    optimizer.zero_grad()
    model(images).square().mean().backward()
    optimizer.step()


@pytest.fixture(autouse=True)
def always_the_same_kernels():
    torch.backends.cudnn.deterministic = True  # a GPU may sum in another order
    yield
    torch.backends.cudnn.deterministic = False


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_optimizers_resume(tmp_path, kind, fused, layout, device):
    whole, model = network(device, layout), network(device, layout)
    optimizer, other = optimizer_of(whole, kind, fused), optimizer_of(model, kind, fused)
    for seed in range(3):
        step(whole, optimizer, seed)
    tensors = {"model": whole.state_dict(), "optimizer": checkpoints.optimizer_tensors(optimizer)}
    tensors, _ = checkpoints.read_checkpoint(
        checkpoints.write_checkpoint(tmp_path, 3, tensors, {}),
    )
    model.load_state_dict(tensors["model"])
    checkpoints.restore_optimizer(other, tensors["optimizer"])
    for seed in range(3, 6):
        step(whole, optimizer, seed)
        step(model, other, seed)
    for one, two in zip(whole.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, two) and one.stride() == two.stride()
        for key, value in optimizer.state[one].items():
            assert torch.equal(value, other.state[two][key])
            assert value.dtype == other.state[two][key].dtype


def test_state_of_another_layout_is_refused():
    """The check, on state loaded by torch itself, in the layout of the file."""
    model = network("cpu", torch.channels_last)
    optimizer = optimizer_of(model, "adamw", True)
    step(model, optimizer, 0)
    checkpoints.check_layout(optimizer)
    told = checkpoints.optimizer_tensors(optimizer)
    plain = optimizer.state_dict()
    for values in plain["state"].values():
        values |= {key: value.contiguous() for key, value in values.items()}
    optimizer.load_state_dict(plain)
    with pytest.raises(AssertionError, match="exp_avg of parameter 0 has strides .147, 49, 7, 1."):
        checkpoints.check_layout(optimizer)
    checkpoints.restore_optimizer(optimizer, told)
    checkpoints.check_layout(optimizer)
    own = optimizer.state[model[0].weight]["exp_avg"]
    own.add_(1)
    assert not torch.equal(own, told["0.exp_avg"]), "what is restored is nobody else's"


def test_state_of_other_parameters_is_refused():
    model = network("cpu", torch.channels_last)
    optimizer = optimizer_of(model, "sgd", True)
    for bad in ({"0.momentum_buffer": torch.zeros(8, 3, 3, 3)}, {"99.step": torch.zeros(())}):
        with pytest.raises(ValueError, match="the optimizer has no parameter for"):
            checkpoints.restore_optimizer(optimizer, bad)


# ---- weights, averages, scaler -------------------------------------------------------------------


def test_weights_keep_their_layout():
    """Files have no layout: it is that of the model that the weights are loaded into."""
    method = methods.build("baseline", backbones.load("small", (64, 32)), 4)
    strides = {name: p.stride() for name, p in method.named_parameters()}
    odd = {name for name, p in method.named_parameters() if not p.is_contiguous()}
    assert any("convolution" in name for name in odd)
    average = Average(method, 0.9)
    weights = {key: value.contiguous() + 1 for key, value in method.state_dict().items()}
    for model in (method, average.model):
        model.load_state_dict(weights)
        assert {name: p.stride() for name, p in model.named_parameters()} == strides
    average.update(method, 5)
    assert {name: p.stride() for name, p in average.model.named_parameters()} == strides


def test_a_scaler_resumes(tmp_path):
    """The loss scale of half precision, and the steps since it last changed."""

    def made() -> SimpleNamespace:
        scaler = torch.amp.GradScaler("cpu", init_scale=1024, growth_interval=3)
        return SimpleNamespace(scaler=scaler, wait_for_everyone=lambda: None)

    def scaled(launcher, weight, optimizer, loss: float) -> None:
        optimizer.zero_grad()
        launcher.scaler.scale((weight * loss).sum()).backward()
        launcher.scaler.step(optimizer)
        launcher.scaler.update()

    weight = torch.nn.Parameter(torch.ones(3))
    optimizer, launcher = torch.optim.SGD([weight], lr=0.1, momentum=0.9, fused=True), made()
    for loss in (1, float("inf"), 1, 1):
        scaled(launcher, weight, optimizer, loss)
    assert launcher.scaler.state_dict()["scale"] == 512
    checkpoints.save(tmp_path, 4, {"model": {"w": weight}}, optimizer, launcher, {})
    twin = torch.nn.Parameter(torch.zeros(3))
    other, again = torch.optim.SGD([twin], lr=0.1, momentum=0.9, fused=True), made()

    def put(tensors: dict) -> None:
        twin.data.copy_(tensors["model"]["w"])

    assert checkpoints.resume(tmp_path, put, other, again) == 4
    for loss in (2, 2):
        scaled(launcher, weight, optimizer, loss)
        scaled(again, twin, other, loss)
    assert torch.equal(weight, twin)
    assert again.scaler.state_dict() == launcher.scaler.state_dict()
    assert again.scaler.state_dict()["scale"] == 1024, "it has grown: the count went on, too"


@pytest.fixture
def fresh_state():
    """Reset accelerate's state of the process (device and precision)."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("device", [GPU])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_stopped_is_close_to_undisturbed_on_a_gpu(
    cargo, models, tmp_path, monkeypatch, fresh_state, precision, device
):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
    options = ("--device", device, "--data.validation", 0, "--optim.average", 0.5)
    run(cargo, models, tmp_path / "whole", *options)
    stopped(tmp_path / "whole", tmp_path / "stopped")
    run(cargo, models, tmp_path / "stopped", *options)
    one, two = (
        checkpoints.read_checkpoint(tmp_path / name / "checkpoint-4")
        for name in ("whole", "stopped")
    )
    assert one[1]["scaler"] == two[1]["scaler"]
    for key, value in one[0]["model"].items():
        assert torch.allclose(value.float(), two[0]["model"][key].float(), atol=1e-3), key
