# SPDX-License-Identifier: Apache-2.0
"""Training: images per second of a step of the trainer, beside a plain loop, and its waiting.

    python benchmarks/train.py [--device auto] [--batch 0] [--rounds 7] [--attention eager]
    python benchmarks/train.py --quick                       # two blocks, few rounds, in a minute

Tables: a ViT-B/16 of random weights at 256 x 128 in float32 and in bf16, and the trainer's "small"
at 128 x 64, whose step is so short that the pictures matter. Each begins with a loop as fast-reid
describes it, written here: a process per loader that opens, resizes, pads, crops, flips, erases and
normalises picture by picture in float32, SGD tensor by tensor, every loss read in every step. Then
the trainer's own step, first without what makes it fast, then with one more of that a row, so that
the last one is the trainer as it is. All rows of a table have the same network, attention, precision
and pictures, and plain and ours must agree in the loss before a clock is started.

The rows take turns in every round, each starts with its loader's queue full and leaves it so: what
a busy machine does hurts all alike. "x plain" is the ratio of the medians, and behind it the least
and the largest ratio of one round. CPU time counts all threads and loader processes. "waits" is how
long a step waits for its pictures, mean and longest. On a GPU the same command adds a row of
torch.compile; on a CPU `--compile` does, which takes minutes.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import torch
import tyro
from accelerate import Accelerator
from PIL import Image, ImageOps
from render import machine
from torch import Tensor, nn
from torch.nn import functional

from viewsynth import train
from viewsynth.records import Sample
from viewsynth.reid import augment, backbones, batches, methods, pool
from viewsynth.reid.pixels import Pixels
from viewsynth.reid.sampler import Plan
from viewsynth.workers import cores

PEOPLE, EACH = 64, 4  # of whom there are pictures, and how many of each
PICTURES = 4  # of a person in a batch
ENDLESS = 10**6  # steps
RATE = 1e-5  # too little to get anywhere: only the time matters
WORKERS = {"cpu": 2, "cuda": 8}  # processes of the plain loop's loader; a GPU gets fast-reid's own
READERS = 2  # threads that read for ours: the default of `batches.stream`


@dataclass(frozen=True)
class Options:
    """What to measure."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model is."""
    batch: int = 0
    """Pictures in a batch of the ViT; 0 = 8 on a CPU, 128 on a GPU."""
    rounds: int = 7
    """In each of which every row has its turn."""
    threads: int = 0
    """Of torch; 0 = all cores."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Of all rows."""
    attention: Literal["sdpa", "eager"] = "sdpa"
    """Of all rows."""
    tables: tuple[Literal["float32", "bf16", "small"], ...] = ("float32", "bf16", "small")
    """Which ones."""
    compile: bool = False
    """A row of torch.compile on a CPU, too."""
    quick: bool = False
    """To see that it works: two blocks instead of twelve, two rounds."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What the rows of a table share."""

    options: Options
    device: str
    half: bool
    size: tuple[int, int]
    method: nn.Module
    plain: nn.Module  # the network of the plain loop: normalised pictures -> features
    plan: Plan
    cached: Pixels
    files: Pixels
    accelerator: Accelerator

    @property
    def batch(self) -> int:
        return self.plan.people * self.plan.pictures


# ---- pictures and networks -----------------------------------------------------------------------


def pictures(folder: Path) -> pool.Pool:
    """JPEGs with the sizes of crops, soft with some grain, as photos compress."""
    rng, samples = np.random.default_rng(0), []
    for person in range(PEOPLE):
        for number in range(EACH):
            height = int(rng.integers(120, 360))
            width = int(height * rng.uniform(0.35, 0.5))
            coarse = rng.integers(0, 256, (height // 16, width // 16, 3)).astype(np.uint8)
            soft = np.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC))
            grain = rng.normal(0, 6, soft.shape)
            path = folder / f"{person:03d}_{number}.jpg"
            Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)
            samples.append(Sample(paths=(path,), pid=f"{person:03d}", name=path.name,
                                  camid=str(number)))  # fmt: skip
    return pool.build(samples)


def networks(options: Options, size: tuple[int, int], folder: Path, small: bool):
    """Our backbone, and a plain module with the same weights: normalised pictures -> features."""
    if small:
        backbone = backbones.load(backbones.SMALL, size)
        tower = copy.deepcopy(backbone.model).to(memory_format=torch.contiguous_format)
        return backbone, _Output(tower, lambda out: out.pooler_output.flatten(1))
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    some = {"num_hidden_layers": 2} if options.quick else {}
    model = ViTModel(ViTConfig(**some), add_pooling_layer=False)
    model.save_pretrained(folder)
    backbone = backbones.load(str(folder), size)
    plain = ViTModel(
        ViTConfig(**some, image_size=size, attn_implementation=options.attention),
        add_pooling_layer=False,
    )
    name = "embeddings.position_embeddings"  # resized once, as the plain loop does too
    plain.load_state_dict(model.state_dict() | {name: backbone.places.detach()})
    for module in backbone.modules():
        if hasattr(module, "config") and not isinstance(module, backbones.Backbone):
            module.config._attn_implementation = options.attention
    return backbone, _Output(plain, lambda out: out.last_hidden_state[:, 0])


class _Output(nn.Module):
    """A model of transformers as pictures -> features."""

    def __init__(self, model: nn.Module, chosen: Callable):
        super().__init__()
        self.model, self.chosen = model, chosen

    def forward(self, images: Tensor) -> Tensor:
        return self.chosen(self.model(pixel_values=images))


# ---- the rows ------------------------------------------------------------------------------------


@dataclass(eq=False)
class Way:
    """A row: how a step is made, and what it took in each round, by step."""

    name: str
    step: Callable[[], None]
    waits: list[float]
    close: Callable[[], None]
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


class Waited:
    """Pixels that note how long each batch was waited for."""

    def __init__(self, pixels: Pixels, waits: list[float]):
        self.pixels, self.samples, self.waits = pixels, pixels.samples, waits

    def prefetch(self, wanted, threads: int) -> Iterator[Tensor]:
        return noted(self.pixels.prefetch(wanted, threads), self.waits)


def noted(items: Iterator, waits: list[float]) -> Iterator:
    """The same items; how long each one took is noted."""
    while True:
        began = time.perf_counter()
        item = next(items, None)
        waits.append(time.perf_counter() - began)
        if item is None:
            return
        yield item


def ours(
    name: str, scene: Scene, cached: bool = True, fused: bool = True,
    change: Callable[[nn.Module], None] | None = None, compiled: bool = False,
) -> Way:  # fmt: skip
    """The trainer's step, as `train.train` makes it."""
    method = copy.deepcopy(scene.method).train()
    if change:
        change(method)
    settings, accelerator = _settings(scene), scene.accelerator
    optimizer = train._optimizer(method, settings)
    model, optimizer = accelerator.prepare(method, optimizer if fused else _looped(optimizer))
    if compiled:  # what accelerate does when it is launched with --dynamo_backend inductor
        model = torch.compile(model)
    waits: list[float] = []
    pixels = Waited(scene.cached if cached else scene.files, waits)
    recipe = augment.Recipe()
    stream = batches.stream(scene.plan, pixels, recipe, range(ENDLESS), device=scene.device)

    def step() -> None:
        batch = next(stream)
        losses = train._step(model, optimizer, (batch,), True, settings, accelerator)
        assert np.isfinite(sum(losses.values())), losses

    return Way(name, step, waits, stream.close)


def _settings(scene: Scene) -> train.Settings:
    return train.Settings(optimizer=scene.options.optimizer, rate=RATE)


def _looped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The same optimiser, tensor by tensor."""
    keep = ("lr", "momentum") if isinstance(optimizer, torch.optim.SGD) else ("lr",)
    known = {key: optimizer.defaults[key] for key in keep}
    groups = [{k: group[k] for k in ("params", "weight_decay")} for group in optimizer.param_groups]
    return type(optimizer)(groups, **known, foreach=False, fused=False)


def whole(method: nn.Module) -> None:
    """The last block computes all tokens."""
    method.backbone.blocks[-1].short = False


def planes(method: nn.Module) -> None:
    """Pictures and weights plane by plane, not channels last."""
    backbone = method.backbone
    backbone.model.to(memory_format=torch.contiguous_format)
    backbone.normalise = lambda images: (images - backbone._mean) / backbone._std


def plain_way(name: str, scene: Scene, half: bool) -> Way:
    """A loop in the way of fast-reid, from its description."""
    device = torch.device(scene.device)
    net = nn.ModuleList([copy.deepcopy(scene.plain), copy.deepcopy(scene.method.neck)])
    net.to(device).train()
    settings = _settings(scene)
    optimizer = _looped(train._optimizer(net, settings))
    scaler = torch.amp.GradScaler(device.type, enabled=False)  # bf16 needs none, but it is asked
    waits: list[float] = []
    source = iter(_loader(scene))
    items = noted(source, waits)

    def step() -> None:
        images, labels = (value.to(device, non_blocking=True) for value in next(items))
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            losses, logits = _plain_losses(net, images, labels)
            loss = sum(losses.values())
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        told = {key: value.item() for key, value in losses.items()}
        told["accuracy"] = (logits.argmax(1) == labels).float().mean().item()
        assert np.isfinite(sum(told.values())), told
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(net.parameters(), settings.clip)
        scaler.step(optimizer)
        scaler.update()

    return Way(name, step, waits, source._shutdown_workers)


def _plain_losses(net: nn.ModuleList, images: Tensor, labels: Tensor) -> tuple[dict, Tensor]:
    """Cross entropy and batch-hard triplet with a soft margin; and the logits."""
    features = net[0](images)
    logits = net[1](features)
    square = features.float().pow(2).sum(1, keepdim=True)
    distances = square + square.T - 2 * features.float() @ features.float().T
    distances = distances.clamp(min=1e-12).sqrt()
    same = (labels[:, None] == labels).float()
    far, near = (distances * same).amax(1), (distances * (1 - same) + 1e9 * same).amin(1)
    losses = {
        "identity": functional.cross_entropy(logits, labels),
        "triplet": functional.soft_margin_loss(near - far, torch.ones_like(far)),
    }
    return losses, logits


def _loader(scene: Scene) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(
        _Pictures(scene), batch_sampler=_Batches(scene.plan), num_workers=WORKERS[scene.device],
        pin_memory=scene.device == "cuda",
    )  # fmt: skip


class _Pictures(torch.utils.data.Dataset):
    """Picture by picture: opened, resized, padded, cropped, flipped, erased, normalised."""

    def __init__(self, scene: Scene):
        chosen = scene.plan.pool
        self.paths, self.labels = [s.paths[0] for s in chosen.samples], chosen.labels
        self.size, self.recipe = scene.size, augment.Recipe()
        backbone = scene.method.backbone
        self.mean = torch.tensor(backbone.mean)[:, None, None]
        self.std = torch.tensor(backbone.std)[:, None, None]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        height, width = self.size
        with Image.open(self.paths[index]) as file:
            image = file.convert("RGB").resize((width, height), Image.BICUBIC)
        pad = round(self.recipe.pad * height / 256)
        left, top = random.randint(0, 2 * pad), random.randint(0, 2 * pad)
        image = ImageOps.expand(image, pad).crop((left, top, left + width, top + height))
        if random.random() < self.recipe.flip:
            image = ImageOps.mirror(image)
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255
        if random.random() < self.recipe.erase:
            _erase(values)
        return (values - self.mean) / self.std, int(self.labels[index])


def _erase(values: Tensor) -> None:
    height, width = values.shape[1:]
    for _ in range(100):
        area = random.uniform(*augment.AREA) * height * width
        ratio = random.uniform(*augment.RATIO)
        high, wide = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if high < height and wide < width:
            top, left = random.randint(0, height - high), random.randint(0, width - wide)
            colour = torch.tensor(augment.MEAN)[:, None, None]
            values[:, top : top + high, left : left + wide] = colour
            return


class _Batches:
    """The same batches of the same plan."""

    def __init__(self, plan: Plan):
        self.plan = plan

    def __iter__(self) -> Iterator[list[int]]:
        return (self.plan.batch(step).tolist() for step in range(ENDLESS))


# ---- measuring -----------------------------------------------------------------------------------


def agree(scene: Scene) -> None:
    """Plain and ours give the same losses for the same pictures, in float32."""
    recipe = augment.Recipe(pad=0, flip=0, erase=0)
    batch = next(batches.stream(scene.plan, scene.cached, recipe, [0], device=scene.device))
    net = nn.ModuleList([scene.plain, copy.deepcopy(scene.method.neck)]).to(scene.device).train()
    method = copy.deepcopy(scene.method).to(scene.device).train()
    backbone = method.backbone
    with torch.no_grad():
        own = {k: v.item() for k, v in method.losses(batch).items()}
        images = (batch.images - backbone._mean) / backbone._std
        other = {k: v.item() for k, v in _plain_losses(net, images, batch.labels)[0].items()}
    assert all(abs(own[k] - other[k]) < 1e-3 * abs(own[k]) for k in own), (own, other)


def measure(ways: list[Way], rounds: int, steps: int, device: str) -> None:
    """Let the rows take turns."""
    for way in ways:
        _turn(way, max(steps, 2), device)
        way.waits.clear()
    for number in range(rounds):
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            seconds, cpu = _turn(way, steps, device)
            way.seconds.append(seconds / steps)
            way.cpu.append(cpu / steps)


def _turn(way: Way, steps: int, device: str) -> tuple[float, float]:
    """Wall seconds of some steps, and CPU seconds until their loader has read as many batches."""
    before, began = settled(), time.perf_counter()
    for _ in range(steps):
        way.step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, settled() - before


def settled() -> float:
    """CPU seconds of this process and its loaders, once nobody reads ahead any more."""
    spent = _cpu()
    while True:
        time.sleep(0.1)
        before, spent = spent, _cpu()
        if spent - before < 0.01:
            return spent


def _cpu() -> float:
    times = [child.cpu_times() for child in psutil.Process().children()]
    return time.process_time() + sum(one.user + one.system for one in times)


def loading(scene: Scene) -> str:
    """What a picture costs when nobody trains."""
    recipe, said = augment.Recipe(), []
    count = max(4, 256 // scene.batch)
    for name, pixels in (("cached", scene.cached), ("from files", scene.files), ("plain", None)):
        if pixels is None:
            source = iter(_loader(scene))
        else:
            steps = range(ENDLESS)
            source = batches.stream(scene.plan, pixels, recipe, steps, device=scene.device)
        next(source)
        before = settled()
        for _ in itertools.islice(source, count):
            pass
        cost = (settled() - before) / count / scene.batch
        source.close() if pixels else source._shutdown_workers()
        said.append(f"{name} {1e3 * cost:.2f} ms ({1 / cost:,.0f}/s a core)")
    return "a picture, read and varied, takes " + ", ".join(said) + " of CPU time"


def table(kind: str, options: Options) -> None:
    """Measure and print a table. Runs in a process of its own."""
    device, small = options.device, kind == "small"
    torch.set_num_threads(options.threads or cores())
    size = (128, 64) if small else (256, 128)
    batch = 32 if small else options.batch or {"cpu": 8, "cuda": 128}[device]
    steps = {"cpu": 10 if small else 1, "cuda": 20}[device]
    rounds = 2 if options.quick else options.rounds
    with tempfile.TemporaryDirectory(prefix="viewsynth-train-") as name:
        folder = Path(name)
        known = pictures(folder)
        backbone, plain = networks(options, size, folder / "vit", small)
        scene = Scene(
            options=options, device=device, half=kind == "bf16", size=size, plain=plain,
            method=methods.build("baseline", backbone, known.classes),
            plan=Plan(pool=known, people=batch // PICTURES, pictures=PICTURES, steps=ENDLESS),
            cached=Pixels.open(known.samples, size, folder / "cache"),
            files=Pixels.open(known.samples, size),
            accelerator=Accelerator(
                cpu=device == "cpu", mixed_precision="bf16" if kind == "bf16" else "no"
            ),
        )  # fmt: skip
        agree(scene)
        print(f"\n{'the small network' if small else 'ViT-B/16'}, {size[0]} x {size[1]}, batch "
              f"{scene.batch}, {'bf16' if scene.half else 'float32'}, {options.optimizer}, "
              f"{rounds} rounds of {steps} steps\n", flush=True)  # fmt: skip
        ways = rows(scene, small)
        try:
            measure(ways, rounds, steps, device)
        finally:
            for way in ways:
                way.close()
        told(ways, scene)
        print("\n" + loading(scene), flush=True)


def rows(scene: Scene, small: bool) -> list[Way]:
    """The plain loop, then ours with ever more of what it has."""
    found = [plain_way("plain loop, float32", scene, False)] if scene.half else []
    found.append(plain_way("plain loop", scene, scene.half))
    network, slow = ("+ channels last", planes) if small else ("+ last block for one token", whole)
    has = small or getattr(scene.method.backbone.blocks[-1], "short", False)
    fused = train._optimizer(scene.method, _settings(scene)).defaults["fused"]
    found.append(ours("ours, from files", scene, cached=False, fused=False, change=slow))
    found.append(ours("+ cached pictures", scene, fused=False, change=slow))
    if has:
        found.append(ours(network, scene, fused=False))
    if fused:
        found.append(ours("+ fused optimiser", scene))
    if scene.device == "cuda" or scene.options.compile:
        found.append(ours("+ torch.compile", scene, compiled=True))
    return found


def told(ways: list[Way], scene: Scene) -> None:
    """Print the rows."""
    base = next(way for way in ways if way.name == "plain loop")
    print("| | images/s | x plain | in a round | CPU ms/image | waits ms | longest |")
    print("|---|---|---|---|---|---|---|")
    for way in ways:
        median = statistics.median(way.seconds)
        ratios = [one / own for one, own in zip(base.seconds, way.seconds, strict=True)]
        print(
            f"| {way.name} | {scene.batch / median:.2f} | "
            f"{statistics.median(base.seconds) / median:.3f} | "
            f"{min(ratios):.3f} to {max(ratios):.3f} | "
            f"{1e3 * statistics.median(way.cpu) / scene.batch:.1f} | "
            f"{1e3 * statistics.mean(way.waits):.2f} | {1e3 * max(way.waits):.1f} |"
        )


def main(options: Options) -> None:
    """Print the tables."""
    if options.device == "auto":
        found = "cuda" if torch.cuda.is_available() else "cpu"
        options = dataclasses.replace(options, device=found)
    print(machine())
    print(
        f"{options.threads or cores()} threads; {options.attention} attention; "
        f"{READERS} threads read for ours, {WORKERS[options.device]} processes for the plain loop"
    )
    if options.device == "cpu":
        print("skipped: what a GPU does with these rows and torch.compile; none is used here")
    for kind in options.tables:  # each in a process of its own: one precision a process
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as one:
            one.submit(table, kind, options).result()


if __name__ == "__main__":
    main(tyro.cli(Options))
