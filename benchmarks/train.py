# SPDX-License-Identifier: Apache-2.0
"""Images per second of the ReID trainer, compared with a plain training loop.

    python benchmarks/train.py [--device auto] [--batch 0] [--rounds 5] [--attention eager]
    python benchmarks/train.py --quick              # two blocks, two rounds: to check that it works

Tables: a ViT-B/16 with random weights at 256 x 128, and the trainer's "small" network at 128 x 64,
whose step is so short that loading images matters; both in float32 and in bf16. The first row is
the loop of `plain.py`, after the description of fast-reid. `viewsynth.reid.training` follows, first
without optimisations, then with one more optimisation per row. All rows of a table have the same
weights, batches, precision and attention; before timing, the losses of plain and ours are checked
to be equal.

For "x plain" and the further columns see `turns.py`. "waits" is the time that a step waits for its
images. torch.compile has a row on a GPU, and on a CPU with `--compile`, where it takes minutes.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import plain
import torch
import tyro
from accelerate import Accelerator
from PIL import Image
from render import machine
from torch import Tensor, nn
from turns import Row, Stepper, idle_cpu_time, measure, print_rows, timed_items

from viewsynth.records import Sample
from viewsynth.reid import backbones, batches, methods, pool, scratch, training
from viewsynth.reid.options import Augmentation, ReIDOptimization
from viewsynth.reid.pixels import Pixels
from viewsynth.reid.sampler import Plan
from viewsynth.runtime.workers import cores
from viewsynth.training import loop

PEOPLE, EACH = 64, 4  # people of the data set, images of each
PICTURES = 4  # images per person in a batch
ENDLESS = 10**6  # steps
WORKERS = {"cpu": 2, "cuda": 8}  # loader processes of the plain loop
Table = Literal["float32", "bf16", "small", "small-bf16"]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the model."""
    batch: int = 0
    """Images per batch of the ViT; 0 = 8 on a CPU, 128 on a GPU."""
    rounds: int = 5
    """Rounds, in each of which every row is timed once."""
    threads: int = 0
    """Threads of torch; 0 = all cores."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimiser of all rows."""
    attention: Literal["sdpa", "eager"] = "sdpa"
    """Attention implementation of all rows."""
    tables: tuple[Table, ...] = ("float32", "bf16", "small", "small-bf16")
    """Tables to print."""
    compile: bool = False
    """Add a row with torch.compile on a CPU."""
    quick: bool = False
    """Check that it works, with two blocks instead of twelve and two rounds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Settings and data of a table, shared by its rows."""

    options: Options
    half: bool
    method: nn.Module
    network: plain.Network
    plan: Plan
    cached: Pixels
    files: Pixels
    accelerator: Accelerator
    settings: ReIDOptimization

    @property
    def batch(self) -> int:
        return self.plan.people * self.plan.pictures


# ---- images and networks -------------------------------------------------------------------------


def pictures(folder: Path) -> pool.Pool:
    """Create JPEGs of the size of crops, smooth with noise, so that they compress like photos."""
    rng, samples = np.random.default_rng(0), []
    for person, number in itertools.product(range(PEOPLE), range(EACH)):
        height = int(rng.integers(120, 360))
        size = int(height * rng.uniform(0.35, 0.5)), height
        coarse = rng.integers(0, 256, (height // 16, size[0] // 16, 3)).astype(np.uint8)
        soft = np.asarray(Image.fromarray(coarse).resize(size, Image.BICUBIC))
        grainy = (soft + rng.normal(0, 6, soft.shape)).clip(0, 255).astype(np.uint8)
        path = folder / f"{person}_{number}.jpg"
        Image.fromarray(grainy).save(path, quality=90)
        samples.append(Sample(paths=(path,), pid=str(person), name=path.name, camid=str(number)))
    return pool.build(samples)


def networks(options: Options, size: tuple[int, int], folder: Path, classes: int, small: bool):
    """Our method, and a plain network with the same weights."""
    if small:
        method = methods.build("baseline", backbones.load(scratch.SMALL, size), classes)
        tower = copy.deepcopy(method.backbone.model).to(memory_format=torch.contiguous_format)
        neck = copy.deepcopy(method.neck)
        return method, plain.Network(tower, lambda out: out.pooler_output.flatten(1), neck)
    from transformers import ViTConfig, ViTModel
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    kind = {"attn_implementation": options.attention}
    kind |= {"num_hidden_layers": 2} if options.quick else {}
    model = ViTModel(ViTConfig(**kind), add_pooling_layer=False)
    model.save_pretrained(folder)
    method = methods.build("baseline", backbones.load(str(folder), size), classes)
    for module in method.backbone.blocks.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = options.attention
    tower = ViTModel(ViTConfig(**kind, image_size=size), add_pooling_layer=False)
    places = {"embeddings.position_embeddings": method.backbone.places.detach()}
    tower.load_state_dict(model.state_dict() | places)
    neck = copy.deepcopy(method.neck)
    return method, plain.Network(tower, lambda out: out.last_hidden_state[:, 0], neck)


def agree(scene: Scene) -> None:
    """Check that plain and ours have equal losses for the same images in float32."""
    device = scene.options.device
    untouched = Augmentation(pad=0, flip=0, erase=0)
    batch = next(batches.stream(scene.plan, scene.cached, untouched, [0], device=device))
    method, network = (copy.deepcopy(m).to(device).train() for m in (scene.method, scene.network))
    with torch.no_grad():
        own = method.losses(batch)
        images = (batch.images - method.backbone._mean) / method.backbone._std
        other = plain.losses(*network(images), batch.labels)
    for name, value in own.items():
        torch.testing.assert_close(value, other[name], rtol=1e-3, atol=1e-3)


# ---- the rows ------------------------------------------------------------------------------------


class Waited:
    """Pixels that record the waiting time for each batch."""

    def __init__(self, pixels: Pixels, waits: list[float]):
        self.samples, self.pixels, self.waits = pixels.samples, pixels, waits

    def prefetch(self, *wanted) -> Iterator[Tensor]:
        return timed_items(self.pixels.prefetch(*wanted), self.waits)


class Launched:
    """Accelerator with or without the fused optimiser and torch.compile."""

    def __init__(self, accelerator: Accelerator, fused: bool, compiled: bool):
        self.accelerator, self.fused, self.compiled = accelerator, fused, compiled

    def __getattr__(self, name: str):
        return getattr(self.accelerator, name)

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer):
        chosen = {"fused": self.fused, "foreach": False}
        optimizer = type(optimizer)([group | chosen for group in optimizer.param_groups])
        model, optimizer = self.accelerator.prepare(model, optimizer)
        # As accelerate does when it is launched with --dynamo_backend inductor.
        return torch.compile(model) if self.compiled else model, optimizer


def ours(
    name: str,
    scene: Scene,
    pixels: Pixels,
    change: Callable[[nn.Module], None] | None = None,
    fused: bool = True,
    compiled: bool = False,
) -> Row:
    """Row of our trainer."""
    method, waits = copy.deepcopy(scene.method), []
    if change:
        change(method)

    def train(pause: Callable) -> None:
        torch.set_num_threads(scene.options.threads or cores())
        task = training.ReIDTask(scene.plan, Waited(pixels, waits), Augmentation(), scene.settings)
        launched = Launched(scene.accelerator, fused, compiled)
        loop.learn(method, task, loop.Run(Path("no-checkpoint"), launched, ENDLESS, pause))

    stepper = Stepper(train)
    return Row(name, stepper.step, waits, stepper.close)


def plain_row(name: str, scene: Scene, half: bool) -> Row:
    """Row of the plain loop."""
    network, waits, device = copy.deepcopy(scene.network), [], scene.options.device
    groups = methods.groups(network, scene.settings.decay)
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[scene.settings.optimizer]
    more = {"momentum": training.MOMENTUM} if kind is torch.optim.SGD else {}
    optimizer = kind(groups, lr=scene.settings.rate, foreach=False, fused=False, **more)
    steps = plain.loop(network, optimizer, timed_items(loader(scene), waits), device, half)
    return Row(name, lambda: next(steps), waits)


def loader(scene: Scene) -> Iterator:
    """Loader of the plain loop, with the batches of our plan."""
    known, body = scene.plan.pool, scene.method.backbone
    paths = [sample.paths[0] for sample in known.samples]
    device = scene.options.device
    return iter(
        torch.utils.data.DataLoader(
            plain.Images(paths, known.labels, body.size, body.mean, body.std),
            batch_sampler=[scene.plan.batch(step).tolist() for step in range(2000)],
            num_workers=WORKERS[device],
            pin_memory=device == "cuda",
        )
    )


def all_tokens(method: nn.Module) -> None:
    """Let the last block compute every token."""
    method.backbone.blocks[-1].short = False


def channels_first(method: nn.Module) -> None:
    """Use the channels-first format for images and weights."""
    body = method.backbone
    body.model.to(memory_format=torch.contiguous_format)
    body.normalise = lambda images: (images - body._mean) / body._std


def rows(scene: Scene) -> list[Row]:
    """The plain loop, then ours with one more optimisation per row."""
    found = [plain_row("plain loop in float32", scene, False)] if scene.half else []
    found.append(plain_row("plain loop", scene, scene.half))
    blocks = getattr(scene.method.backbone, "blocks", None)
    if blocks is None:
        network, slow = "+ channels last", channels_first
    else:
        network, slow = "+ last block for one token", all_tokens
    found.append(ours("ours, images from files", scene, scene.files, slow, fused=False))
    found.append(ours("+ cached images", scene, scene.cached, slow, fused=False))
    if blocks is None or getattr(blocks[-1], "short", False):
        found.append(ours(network, scene, scene.cached, fused=False))
    found.append(ours("+ fused optimiser", scene, scene.cached))
    if scene.options.device == "cuda" or scene.options.compile:
        found.append(ours("+ torch.compile", scene, scene.cached, compiled=True))
    return found


# ---- tables --------------------------------------------------------------------------------------


def loading(scene: Scene) -> str:
    """CPU time of loading an image without training."""
    count, parts = max(4, 256 // scene.batch), []
    for name, pixels in (("cached", scene.cached), ("from files", scene.files), ("plain", None)):
        if pixels is None:
            source = loader(scene)
        else:
            steps = range(2 * count)
            source = batches.stream(
                scene.plan, pixels, Augmentation(), steps, device=scene.options.device
            )
        next(source)
        before = idle_cpu_time()
        for _ in range(count):
            next(source)
        cost = (idle_cpu_time() - before) / count / scene.batch
        parts.append(f"{name} {1e3 * cost:.2f} ms ({1 / cost:,.0f}/s per core)")
    return "CPU time per image, loaded and augmented: " + ", ".join(parts) + "."


def table(kind: Table, options: Options) -> None:
    """Measure and print a table, in a separate process, because accelerate fixes the precision."""
    torch.set_num_threads(options.threads or cores())
    small, half, cpu = "small" in kind, "bf16" in kind, options.device == "cpu"
    size = (128, 64) if small else (256, 128)
    batch = 32 if small else options.batch or (8 if cpu else 128)
    steps, rounds = 20 if small or not cpu else 1, 2 if options.quick else options.rounds
    with tempfile.TemporaryDirectory(prefix="viewsynth-train-") as name:
        folder = Path(name)
        known = pictures(folder)
        method, network = networks(options, size, folder / "vit", known.classes, small)
        scene = Scene(
            options=options,
            half=half,
            method=method,
            network=network,
            plan=Plan(pool=known, people=batch // PICTURES, pictures=PICTURES, steps=ENDLESS),
            cached=Pixels.open(known.samples, size, folder / "cache"),
            files=Pixels.open(known.samples, size),
            accelerator=Accelerator(cpu=cpu, mixed_precision="bf16" if half else "no"),
            settings=ReIDOptimization(
                optimizer=options.optimizer, rate=1e-5, mine_synthetic_from=0
            ),
        )
        agree(scene)
        print(
            f"\n{'the small network' if small else 'ViT-B/16'}, {size[0]} x {size[1]}, batch "
            f"{scene.batch}, {'bf16' if half else 'float32'}, {options.optimizer}, {rounds} rounds "
            f"of {steps} steps\n",
            flush=True,
        )
        found = rows(scene)
        try:
            measure(found, rounds, steps, options.device)
            print_rows(found, found[half], scene.batch)
            print("\n" + loading(scene), flush=True)
        finally:
            for row in found:
                row.close()


def main(options: Options) -> None:
    """Print the tables."""
    if options.device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        options = dataclasses.replace(options, device=device)
    print(
        f"{machine()}\n{options.threads or cores()} threads; {options.attention} attention; 2 "
        f"loader threads for ours, {WORKERS[options.device]} loader processes for the plain loop"
    )
    if options.device == "cpu":
        print("skipped without a GPU: batch 128 in bf16 with torch.compile")
    for kind in options.tables:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as one:
            one.submit(table, kind, options).result()


if __name__ == "__main__":
    main(tyro.cli(Options))
