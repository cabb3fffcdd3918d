# SPDX-License-Identifier: Apache-2.0
"""`viewsynth match` as a whole: two cameras, one of them grey, and their presets in `generate`."""

import numpy as np
import pytest
from PIL import Image

from viewsynth import config
from viewsynth.commands import generate, match
from viewsynth.match import estimate
from viewsynth.render import options
from viewsynth.world import shots

ABOVE = tuple(
    shots.SimpleShot(name=name, elevation=40, azimuth=azimuth, platform="drone", height=150)
    for name, azimuth in (("a", 20), ("b", 200))
)


@pytest.fixture(scope="module")
def presets(tmp_path_factory, pose_model):
    """The folder that holds `drone-colour.yaml` and `drone-grey.yaml`, and what was said."""
    root = tmp_path_factory.mktemp("match")
    people = shots.write_folder(root / "people", 4, seed=4, shots=ABOVE)
    for path in sorted(people.rglob("*.jpg")):
        image = Image.open(path)
        for camera, kind, size in (("colour", "RGB", 1.0), ("grey", "L", 0.7)):
            target = root / "air" / camera / f"{path.parent.name}_{path.stem}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            small = image.resize([round(side * size) for side in image.size])
            small.convert(kind).convert("RGB").save(target, quality=70)
    with pytest.MonkeyPatch.context() as patch:
        for name, few in (("SIMULATED", 60), ("ROUNDS", 1), ("MATCHED", 8), ("STEPS", 2)):
            patch.setattr(estimate, name, few)
        argv = [str(root / "air"), "--output", str(root / "drone.yaml"), "--cameras"]
        argv += ["--people", "4", "--grounds", "2"]
        assert match.run(config.parse(match.Config, argv, "match")) == 0
    return root


def test_each_camera_gets_its_own_preset(presets):
    made = {
        name: config.parse(match.Preset, [str(presets / f"drone-{name}.yaml")], "match")
        for name in ("colour", "grey")
    }
    colour, grey = made["colour"].sensor, made["grey"].sensor
    assert max(options.span(colour.saturation)) > 0.3
    assert grey.saturation == 0 and grey.chroma_noise == 0
    assert sum(options.span(colour.pixels)) > 1.2 * sum(options.span(grey.pixels))
    # The tables of the files say the compression.
    assert colour.jpeg == grey.jpeg == (70.0, 70.0)
    for name in made:
        assert Image.open(presets / f"drone-{name}_report.png").size[0] > 100


def test_generate_takes_a_preset(presets):
    images = {}
    for workers in ("1", "2"):
        output = presets / f"run{workers}"
        argv = [str(presets / "drone-grey.yaml"), "--data.people", "2", "--chunk", "1"]
        argv += ["--views.elevations", "50", "--views.azimuths", "0", "90", "--report", "no"]
        argv += ["--workers", workers, "--output", str(output)]
        assert generate.run(config.parse(generate.Config, argv, "generate")) == 0
        files = sorted((output / "images").rglob("*.jpg"))
        images[workers] = [path.read_bytes() for path in files]
        assert len(files) == 4
        for path in files:
            pixels = np.asarray(Image.open(path).convert("RGB"), int)
            assert np.ptp(pixels, axis=2).mean() < 4, "as grey as the camera"
    assert images["1"] == images["2"], "the same bytes for any number of processes"
