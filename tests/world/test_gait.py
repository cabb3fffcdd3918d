# SPDX-License-Identifier: Apache-2.0
"""Motions and their poses: plausible, continuous, and without sliding feet."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from viewsynth import bodies
from viewsynth.bodies import poses
from viewsynth.records import seed_of, to_dict
from viewsynth.world import gait, motions, stride

AT = {name: row for row, name in enumerate(bodies.KEYPOINTS)}
WALK = motions.Motion(kind="walk", phase=20.0, speed=1.3)
RUN = motions.Motion(kind="run", phase=0.0, speed=3.0)


@pytest.fixture(scope="module")
def body():
    return bodies.load("anny")


def sampled(number, side=""):
    return motions.sample_motion(np.random.default_rng(seed_of(0, "gait", number)), side)


def degrees(body, motion, phases):
    """Rotation vectors in degrees by bone, at given phases of a motion, [T, 3] each."""
    times = torch.from_numpy(phases) / gait.rate(motion, body)
    stack, _ = gait.tracklet(replace(motion, phase=0.0), body, times)
    return {bone: torch.rad2deg(stack[:, row]) for row, bone in enumerate(body.bones)}


def soles(body, motion, shape, steps=80, seconds=1.2):
    """Sole vertices in the world over a tracklet [T, N, 3], and the seconds between two rows."""
    times = torch.linspace(0, seconds, steps)
    pose, way = gait.tracklet(motion, body, times, shape)
    at = body.vertices(shape[None], pose, stride.legs_of(body).soles)
    rate, leg = gait.rate(motion, body, shape), gait.leg_length(body, shape)
    phases = [(motion.phase + rate * float(t)) % 360 for t in times]
    lifted = torch.tensor([gait.lift(replace(motion, phase=p), leg) for p in phases])
    at[..., 1] += (lifted - at[..., 1].amin(1))[:, None]
    at[..., 2] += way[:, None]
    return at, seconds / (steps - 1)


def slide(at, seconds):
    """Horizontal speed of the sole points that touch the ground, m/s."""
    speed = (at[1:] - at[:-1])[..., [0, 2]].norm(dim=-1) / seconds
    return speed[torch.maximum(at[1:], at[:-1])[..., 1] < 0.004]


def joint(body, motion, name):
    at = body.vertices(body.shape_mean[None], gait.pose(motion, body)[None])
    return bodies.keypoints(body, at)[0, AT[name]]


@pytest.mark.parametrize("motion", [WALK, replace(WALK, speed=0.8), replace(WALK, speed=1.8), RUN])
def test_standing_foot_does_not_slide(body, motion):
    speed = slide(*soles(body, motion, body.shape_mean))
    assert speed.quantile(0.8) < 0.02 * motion.speed
    # It may move where the foot rolls on a rounded sole, or strikes or leaves between two frames.
    assert speed.mean() < 0.05 * motion.speed
    sliding = slide(*soles(body, replace(motion, speed=1.3 * motion.speed), body.shape_mean))
    assert sliding.quantile(0.8) < 0.03 * motion.speed  # holds because speed and steps agree


def test_wrong_speed_slides(body):
    at, seconds = soles(body, WALK, body.shape_mean)
    at[..., 2] += 0.3 * WALK.speed * torch.arange(len(at))[:, None] * seconds
    assert slide(at, seconds).median() > 0.25 * WALK.speed


def test_feet_do_not_slide_for_sampled_motions_and_sizes(body):
    generator = torch.Generator().manual_seed(3)
    for number in range(6):
        draw = torch.rand(len(body.shapes), generator=generator)
        shape = body.shape_low + (body.shape_high - body.shape_low) * draw
        motion = replace(sampled(number), kind="walk", speed=1.2)
        speed = slide(*soles(body, motion, shape, steps=50))
        assert speed.median() < 0.06 * motion.speed, number


def test_both_feet_meet_the_ground_in_turn(body):
    at, _ = soles(body, WALK, body.shape_mean)
    left = body.parts[stride.legs_of(body).soles] == bodies.PARTS.index("left_foot")
    low = torch.stack([at[:, left, 1].amin(1), at[:, ~left, 1].amin(1)], 1)
    assert low.amin() > -1e-4 and low.amin(1).max() < 1e-4  # at least one foot on the ground
    assert 0.15 < (low < 0.006).all(1).float().mean() < 0.5  # double support
    assert low.amax() > 0.015  # the swinging foot clears the ground


@pytest.mark.parametrize("kind", ["walk", "run", "cycle", "stand"])
def test_periodic_and_continuous(body, kind):
    motion = replace(sampled(5), kind=kind, speed={"stand": 0.0, "walk": 1.4}.get(kind, 3.5))
    phases = np.arange(0, 361, 2.0)
    turns = degrees(body, motion, phases)
    for bone, turn in turns.items():
        assert (turn[0] - turn[-1]).abs().max() < 0.01, bone
        step = (turn[1:] - turn[:-1]).abs()
        assert step.max() < 7, bone  # degrees per 1/180 of a cycle
        if kind == "stand":
            assert turn.max(0).values.sub(turn.min(0).values).max() < 6, bone


def test_walking_angles_are_natural(body):
    """Within Winter's ranges of normal walking, left leg, with a margin."""
    turns = degrees(body, WALK, np.arange(0, 360, 6.0))
    hip, knee = -turns["upperleg01.L"][:, 0], turns["lowerleg01.L"][:, 0]
    assert 20 < hip.max() < 36 and -22 < hip.min() < -6
    assert 48 < knee.max() < 70 and -1 < knee.min() < 8
    assert 216 < 6 * int(knee.argmax()) < 288  # bent most in early swing
    assert 10 < knee[:15].max() < 28  # flexes after heel strike
    swing = turns["upperarm01.L"][:, 0]
    assert 18 < swing.max() - swing.min() < 45
    # The arm swings with the opposite leg.
    assert np.corrcoef(-swing, -turns["upperleg01.R"][:, 0])[0, 1] > 0.8


def test_sides_alternate(body):
    here, half = gait.pose(WALK, body), gait.pose(replace(WALK, phase=200.0), body)
    for row, bone in enumerate(body.bones):
        mirrored = bone[:-1] + {"L": "R", "R": "L"}[bone[-1]] if bone[-2] == "." else bone
        other = half[body.bones.index(mirrored)] * torch.tensor([1.0, -1.0, -1.0])
        assert torch.allclose(here[row], other, atol=1e-4), bone


def test_a_pose_does_not_depend_on_its_tracklet(body):
    times = torch.linspace(0, 2, 9)
    together, _ = gait.tracklet(WALK, body, times)
    for k, time in enumerate(times):
        phase = WALK.phase + gait.rate(WALK, body) * float(time.double())
        assert torch.allclose(gait.pose(replace(WALK, phase=phase), body), together[k], atol=2e-6)
        assert torch.equal(gait.tracklet(WALK, body, times[k : k + 1])[0][0], together[k])


def test_sampled_poses_respect_joint_limits(body):
    """Within the limits of the fit, with a margin for runners and cyclists, which it excludes."""
    room = torch.full_like(body.pose_low, 10.0)
    for row, bone in enumerate(body.bones):
        if bone.startswith(("upperarm", "lowerarm")):
            room[row] = 20.0
        if bone.startswith("upperleg"):
            room[row, 0] = 30.0
    low = torch.rad2deg(body.pose_low) - room
    high = torch.rad2deg(body.pose_high) + room
    for number in range(120):
        turn = torch.rad2deg(gait.pose(sampled(number), body))
        wrong = ((turn < low) | (turn > high)).any(1)
        assert not wrong.any(), (number, [b for b, w in zip(body.bones, wrong, strict=True) if w])


def test_samples_vary_and_respect_the_carrying_hand():
    samples = [sampled(number) for number in range(600)]
    kinds = {kind: sum(m.kind == kind for m in samples) / 600 for kind in motions.KINDS}
    assert all(share > 0 for share in kinds.values()) and kinds["walk"] == max(kinds.values())
    assert 0.5 < kinds["walk"] < 0.7
    assert len({m.arms for m in samples}) > 15 and len({m.phase for m in samples}) > 500
    for side, arm in (("left", 0), ("right", 1)):
        for number in range(60):
            laden = sampled(number, side)
            assert laden.hand == side and laden.arms[arm] == "bag" != laden.arms[1 - arm]
            assert laden.kind in ("carry", "phone")


def test_the_same_seed_gives_the_same_motion_and_json_round_trip(body):
    motion = sampled(9)
    assert motion == sampled(9)
    plain = to_dict(motion)
    again = motions.Motion(**{**plain, "arms": tuple(plain["arms"])})
    assert torch.equal(gait.pose(motion, body), gait.pose(again, body))


def test_lift_only_in_flight_and_on_pedals(body):
    for kind in ("walk", "stand", "phone", "carry"):
        motion = replace(WALK, kind=kind, speed=0.0 if kind == "stand" else 1.0)
        assert gait.lift(motion, 0.9) == 0
    flight = np.array([gait.lift(replace(RUN, phase=p), 0.9) for p in range(0, 360, 3)])
    assert 0.01 < flight.max() < 0.1 and 0.1 < (flight > 0.002).mean() < 0.5
    assert flight[0] == 0 and np.abs(np.diff(flight)).max() < 0.01
    pedals = [
        gait.lift(motions.Motion(kind="cycle", phase=p, speed=4.0), 0.9) for p in range(0, 360, 9)
    ]
    assert min(pedals) > 0.05 and max(pedals) < 0.5


def test_saddle_stays_at_one_height(body):
    heights = []
    for phase in range(0, 360, 30):
        motion = motions.Motion(kind="cycle", phase=phase, speed=4.0, arms=("bar", "bar"))
        at = body.vertices(body.shape_mean[None], gait.pose(motion, body)[None])[0]
        leg = gait.leg_length(body, body.shape_mean)
        hips = bodies.keypoints(body, at[None])[0, [AT["left_hip"], AT["right_hip"]], 1].mean()
        heights.append(float(hips - at[:, 1].min()) + gait.lift(motion, leg))
    assert max(heights) - min(heights) < 0.05


def test_hands_are_where_the_pose_of_the_arm_says(body):
    def hand(arm, name="left_wrist"):
        still = motions.Motion(kind="stand", phase=0.0, speed=0.0, arms=(arm, "hang"))
        return joint(body, still, name)

    rest, ear, hip = hand("hang"), hand("hang", "left_ear"), hand("hang", "left_hip")
    assert (hand("ear") - ear).norm() < 0.25
    assert hand("behind")[2] < hip[2] - 0.05 and hand("text")[2] > rest[2] + 0.15
    assert (hand("pocket") - hip).norm() < 0.2
    assert hand("crossed")[0] < 0.05 and hand("hip", "left_elbow")[0] > rest[0] + 0.05
    knee, ankle = (joint(body, WALK, f"left_{name}") for name in ("knee", "ankle"))
    assert knee[1] > ankle[1]


def test_poses_differ_from_those_of_reconstruction(body):
    bank = poses.bank(body)
    for phase in range(0, 360, 15):
        apart = (gait.pose(replace(WALK, phase=float(phase)), body) - bank).abs().amax((1, 2))
        assert torch.rad2deg(apart).min() > 4


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "swim"},
        {"speed": -1.0},
        {"speed": 0.0},
        {"hand": "both"},
        {"style": {"limp": 1.0}},
        {"arms": ("wing", "hang")},
    ],
)
def test_invalid_motions_are_refused(change):
    with pytest.raises(ValueError, match="Motion"):
        replace(WALK, **change)
