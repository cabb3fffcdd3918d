# SPDX-License-Identifier: Apache-2.0
"""Storage of pairs: what was written is read back, and incomplete folders are refused."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch

from viewsynth.diffusion.conditions import CAMERA
from viewsynth.diffusion.pairs import stored
from viewsynth.diffusion.pairs.stored import Pairs

SIZE = (12, 8)
CAM = [50.0, 5.0, -20.0, 30.0, 0.8]
assert len(CAM) == len(CAMERA)


def arrays(rng, count, photos, mask=True, size=SIZE):
    def some(n, *tail):
        return rng.integers(0, 256, (n, *size, *tail), dtype=np.uint8)

    found = {
        "source": some(photos, 3),
        "render": some(count, 3),
        "target": some(count, 3),
        "seen": some(count),
        "normals": some(count, 3),
        "mask": some(count),
    }
    found["normals"][found["normals"] == 0] = 1
    return found if mask else {k: v for k, v in found.items() if k != "mask"}


def made(folder, seed=0, mask=True, size=SIZE):
    """Two shards: three pairs with two source images, and two pairs with one."""
    rng, rows, digests, every = np.random.default_rng(seed), [], {}, {}
    for name, count, photos in (("a", 3, 2), ("b", 2, 1)):
        every[name] = arrays(rng, count, photos, mask or name == "a", size)
        data = stored.shard(every[name])
        stored._file(folder, name).parent.mkdir(parents=True, exist_ok=True)
        stored._file(folder, name).write_bytes(data)
        digests[name] = hashlib.sha256(data).hexdigest()
        rows += [
            {
                "pid": name,
                "kind": "exact",
                "split": "train",
                "elevation": 50.0,
                "camera": CAM,
                "shard": name,
                "place": k,
                "source": k % photos,
            }
            for k in range(count)
        ]
    stored.finish(folder, size, rows, digests)
    return every


def test_what_was_written_is_read_back(tmp_path):
    every = made(tmp_path)
    found = Pairs.open(tmp_path)
    assert len(found) == 5 and found.size == SIZE and found.rows[3]["shard"] == "b"
    conditions, target, mask = found.batch([4, 0, 2])
    conditions.check(SIZE)
    for row, (name, place, photo) in enumerate((("b", 1, 0), ("a", 0, 0), ("a", 2, 0))):
        item = every[name]
        plane = {key: values[place] for key, values in item.items() if key != "source"}
        got = {"render": conditions.render, "target": target}
        for key, value in got.items():
            assert np.array_equal((value[row].movedim(0, -1) * 255).round().numpy(), plane[key])
        assert np.allclose(conditions.seen[row, 0].numpy() * 255, plane["seen"], atol=1e-3)
        assert np.allclose(mask[row, 0].numpy() * 255, plane["mask"], atol=1e-3)
        normals = conditions.normals[row].movedim(0, -1).numpy()
        assert np.allclose(normals * 127 + 128, plane["normals"], atol=1e-3)
        source = conditions.source[conditions.person[row]].movedim(0, -1) * 255
        assert np.array_equal(source.round().numpy(), item["source"][photo])
    assert conditions.camera.tolist() == pytest.approx(np.array([CAM] * 3))


def test_shared_source_images_occur_once(tmp_path):
    made(tmp_path)
    conditions, _, _ = Pairs.open(tmp_path).batch([0, 2, 1, 3, 4, 0])
    assert conditions.person.tolist() == [0, 0, 1, 2, 2, 0] and len(conditions.source) == 3


def test_normals_and_values_survive_storage():
    normals = torch.tensor([0.0, 1.0, -1.0, 0.5, -0.003])
    back = (torch.from_numpy(stored.normals_to_uint8(normals)).float() - 128) / 127
    assert back[0] == 0 and torch.allclose(back, normals, atol=0.5 / 127)
    values = torch.tensor([0.0, 1.0, 128 / 255, 1.0001])
    assert stored.to_uint8(values).tolist() == [0, 255, 128, 255]


def test_unknown_masks(tmp_path):
    made(tmp_path, mask=False)  # shard b has none
    found = Pairs.open(tmp_path)
    assert found.batch([3, 4])[2] is None
    mask = found.batch([0, 3])[2]
    assert mask.shape == (2, 1, *SIZE) and (mask[1] == 1).all() and not (mask[0] == 1).all()


def test_several_folders_are_concatenated(tmp_path):
    for k in range(2):
        made(tmp_path / str(k), seed=k)
    one, other = (Pairs.open(tmp_path / str(k)) for k in range(2))
    both = Pairs.open(tmp_path / "0", tmp_path / "1")
    assert len(both) == 10
    assert len({one.fingerprint, other.fingerprint, both.fingerprint}) == 3
    target = both.batch([1, 6])[1]
    assert torch.equal(target[:1], one.batch([1])[1])
    assert torch.equal(target[1:], other.batch([1])[1])


def test_the_fingerprint_is_of_the_content(tmp_path):
    for k, seed in enumerate((0, 0, 1)):
        made(tmp_path / str(k), seed=seed)
    marks = [Pairs.open(tmp_path / str(k)).fingerprint for k in range(3)]
    assert marks[0] == marks[1] != marks[2]


def test_missing_and_incomplete_pairs_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no pairs"):
        Pairs.open(tmp_path)
    made(tmp_path)
    index, rows = tmp_path / stored.INDEX, tmp_path / stored.ROWS
    shard, text = stored._file(tmp_path, "b"), (tmp_path / stored.ROWS).read_text()
    whole = shard.read_bytes()

    shard.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match="same command"):
        Pairs.open(tmp_path)
    shard.unlink()
    with pytest.raises(ValueError, match="b.safetensors is missing"):
        Pairs.open(tmp_path)
    shard.write_bytes(bytes(len(whole)))
    with pytest.raises(ValueError, match="not a shard of pairs"):
        Pairs.open(tmp_path)
    shard.write_bytes(whole)
    Pairs.open(tmp_path)

    rows.write_text("\n".join(text.splitlines()[:3]) + "\n")
    with pytest.raises(ValueError, match="has 3 rows, expected 5"):
        Pairs.open(tmp_path)
    rows.write_text(text.replace('"place": 2', '"place": 3', 1))
    with pytest.raises(ValueError, match="line 3: the row does not match"):
        Pairs.open(tmp_path)
    rows.write_text(text.replace('"camera"', '"kamera"', 1))
    with pytest.raises(ValueError, match="line 1: a field is missing or wrong .KeyError"):
        Pairs.open(tmp_path)
    rows.write_text(text)

    told = json.loads(index.read_text())
    index.write_text(json.dumps(told | {"format": 9}))
    with pytest.raises(ValueError, match="format 9"):
        Pairs.open(tmp_path)
    index.write_text("{")
    with pytest.raises(ValueError, match="not an index"):
        Pairs.open(tmp_path)
    index.unlink()
    with pytest.raises(ValueError, match="incomplete"):
        Pairs.open(tmp_path)


def test_a_shard_outside_the_folder_is_not_opened(tmp_path):
    made(tmp_path / "in")
    index = tmp_path / "in" / stored.INDEX
    told = json.loads(index.read_text())
    told["shards"] = {"../../out": 3}
    index.write_text(json.dumps(told))
    with pytest.raises(ValueError, match="leads out of"):
        Pairs.open(tmp_path / "in")


def test_sizes_must_be_equal(tmp_path):
    made(tmp_path / "0")
    made(tmp_path / "1", size=(16, 8))
    with pytest.raises(ValueError, match="12x8.*16x8"):
        Pairs.open(tmp_path / "0", tmp_path / "1")
