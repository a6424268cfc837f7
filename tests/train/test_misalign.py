"""Misalignment: the matrix says what was done to the picture, and its edge is real or mirrored."""

import json
import random
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps

from face_destyle import images
from face_destyle.configs import config_from_dict
from face_destyle.errors import UserError
from face_destyle.models.similarity import compose, invert, warp
from tests import drawn
from tests.train import made
from train.misalign import (
    MisalignConfig,
    Misalignment,
    draw_misalignment,
    mirrored,
    named_misalignment,
    turn_photo,
    turn_portraits,
)

BOUNDS = MisalignConfig()
SOME = [named_misalignment(BOUNDS, 0, "some", variant) for variant in range(4)]
EXTREME = Misalignment(-45.0, 0.8, 6.4, -6.4)


def tensor(picture: Image.Image) -> torch.Tensor:
    return images.to_tensor([picture], images.FACE_SIDE)


def context(margin: int) -> Image.Image:
    """A drawn face whose surroundings are red."""
    return ImageOps.expand(drawn.face(), margin, "red")


def red(picture: Image.Image) -> np.ndarray:
    """Where a picture is red."""
    pixels = np.asarray(picture).astype(int)
    return (pixels[..., 0] > 200) & (pixels[..., 1:].max(2) < 60)


class TestAlignment:
    def test_the_identity(self) -> None:
        assert Misalignment().alignment().tolist() == [[1, 0, 0], [0, 1, 0]]
        assert "-" not in json.dumps(Misalignment().alignment().tolist())

    def test_clockwise_smaller_right_and_down(self) -> None:
        found = Misalignment(90.0, 0.8, 6.4, 3.2).alignment()
        expected = torch.tensor([[0.0, -0.8, 0.1], [0.8, 0.0, 0.05]])
        assert torch.allclose(found, expected, atol=1e-6)  # right of the face becomes its bottom

    @pytest.mark.parametrize("one", [*SOME, EXTREME])
    def test_is_read_back(self, one: Misalignment) -> None:
        assert astuple(Misalignment.of(one.alignment())) == pytest.approx(astuple(one), abs=1e-4)


class TestDraw:
    def test_fills_the_bounds_and_keeps_them(self) -> None:
        rng = np.random.default_rng(0)
        found = np.array([astuple(draw_misalignment(BOUNDS, rng)) for _ in range(1000)])
        low, high = np.array([-45, 0.8, -6.4, -6.4]), np.array([45, 1.0, 6.4, 6.4])
        assert (found >= low).all() and (found <= high).all()
        reach = (high - low) / 50
        assert (found.min(0) < low + reach).all() and (found.max(0) > high - reach).all()
        assert np.abs(found.mean(0) - (low + high) / 2).max() < 3

    def test_four_numbers_are_taken_in_any_case(self) -> None:
        after = []
        for around in (None, EXTREME):
            draw = random.Random(0)
            draw_misalignment(BOUNDS, draw, around)
            after.append(draw.random())
        assert after[0] == after[1]

    def test_around_another_stays_near_and_within(self) -> None:
        rng = np.random.default_rng(0)
        found = np.array([astuple(draw_misalignment(BOUNDS, rng, EXTREME)) for _ in range(200)])
        assert found[:, 0].min() >= -45 and found[:, 0].max() <= -45 + 0.2 * 45
        assert found[:, 1].min() >= 0.8 and found[:, 1].max() <= 0.82 + 1e-9
        assert found[:, 2].min() >= 6.4 * 0.8 - 1e-9 and found[:, 2].max() <= 6.4
        assert np.ptp(found[:, 0]) > 8

    def test_by_name_the_same_every_time(self) -> None:
        assert [named_misalignment(BOUNDS, 0, "some", v) for v in range(4)] == SOME
        others = [(0, "some", 0), (1, "some", 0), (0, "other", 0), (0, "some", 1)]
        assert len({named_misalignment(BOUNDS, *name) for name in others}) == 4

    def test_a_given_angle_goes_to_either_side(self) -> None:
        for variant, one in enumerate(SOME):
            given = named_misalignment(BOUNDS, 0, "some", variant, angle=30)
            assert abs(given.angle) == 30 and given.angle * one.angle > 0
            assert astuple(given)[1:] == astuple(one)[1:]
        signs = {named_misalignment(BOUNDS, 0, str(n), 0, angle=15).angle for n in range(20)}
        assert signs == {-15, 15}

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"scale": [0.8]}, "scale"),
            ({"scale": [1.0, 0.8]}, "scale"),
            ({"scale": [0.0, 1.0]}, "scale"),
            ({"angle": -1.0}, "angle"),
        ],
    )
    def test_bounds_that_are_none(self, fields: dict[str, Any], named: str) -> None:
        with pytest.raises(UserError, match=f"turns: .*{named}"):
            config_from_dict(MisalignConfig, fields, "turns")


class TestTurnPhoto:
    @pytest.mark.parametrize("one", [*SOME, EXTREME])
    @pytest.mark.parametrize("margin", [0, 16])
    def test_the_alignment_brings_the_photo_back(self, one: Misalignment, margin: int) -> None:
        turned = tensor(turn_photo(context(margin), margin, one))
        back = warp(turned, one.alignment()[None])
        assert made.circle_psnr(back, drawn.faces(1)) > 25
        assert made.circle_psnr(turned, drawn.faces(1)) < 20
        wrong = warp(turned, invert(one.alignment()[None]))
        assert made.circle_psnr(wrong, drawn.faces(1)) < 20

    def test_nothing_to_turn_is_nearly_the_photo(self) -> None:
        same = turn_photo(context(16), 16, Misalignment())
        assert made.circle_psnr(tensor(same), drawn.faces(1)) > 31  # the drawn noise is softened

    def test_real_surroundings_are_used_as_far_as_they_go(self) -> None:
        one = Misalignment(0.0, 0.8, 0.0, 0.0)
        shown = red(turn_photo(context(16), 16, one))
        # 128 of 160 pixels are the face, and the margin is all the rest.
        assert shown[:12].all() and shown[-12:].all() and shown[:, :12].all()
        assert not shown[14:-14, 14:-14].any()
        # Without a margin the face itself is mirrored, and that is not red.
        assert not red(turn_photo(context(0), 0, one)).any()

    def test_beyond_the_surroundings_they_are_reflected(self) -> None:
        photo = Image.new("RGB", (128, 128), "white")
        ImageDraw.Draw(photo).rectangle((8, 0, 15, 127), fill="red")
        shown = red(turn_photo(photo, 0, Misalignment(0.0, 0.8, 0.0, 0.0)))
        # A stripe 8 pixels inside the left edge, and again 8 pixels outside of it.
        edge = 64 - 0.8 * 64
        inside, outside = round(edge + 0.8 * 12), round(edge - 0.8 * 12)
        assert shown[:, inside].all() and shown[:, outside].all()
        assert not shown[:, round(edge)].any()

    def test_the_corner_of_the_furthest_turn_is_filled(self) -> None:
        white = Image.new("RGB", (128, 128), "white")
        for angle in (45.0, 135.0, 180.0):
            turned = turn_photo(white, 0, Misalignment(angle, 0.5, 20.0, -20.0))
            assert np.asarray(turned).min() == 255

    def test_fine_detail_does_not_alias(self) -> None:
        board = np.indices((128, 128)).sum(0) % 2 * 255
        photo = Image.fromarray(np.repeat(board[..., None], 3, 2).astype(np.uint8))
        turned = turn_photo(photo, 0, Misalignment(0.0, 0.8, 0.0, 0.0))
        # At 0.8 of its size the board is finer than the pixels: grey, and no coarse pattern.
        assert np.asarray(turned.resize((32, 32), Image.Resampling.BOX)).std() < 6

    def test_a_mirrored_photo_has_the_mirrored_alignment(self) -> None:
        flipped = ImageOps.mirror(context(16))
        other = Misalignment.of(mirrored(EXTREME.alignment()[None])[0])
        assert astuple(other) == pytest.approx((45.0, 0.8, -6.4, -6.4), abs=1e-4)
        one, two = turn_photo(context(16), 16, EXTREME), turn_photo(flipped, 16, other)
        assert made.circle_psnr(tensor(ImageOps.mirror(two)), tensor(one)) > 45


class TestTurnPortraits:
    def test_as_a_photo_is_turned(self) -> None:
        for one in SOME:
            turned = turn_portraits(drawn.faces(1), invert(one.alignment()[None]))
            photo = tensor(turn_photo(drawn.face(), 0, one))
            assert made.circle_psnr(turned, photo) > 33
            assert turned.abs().max() <= 1

    def test_twice_is_once_with_the_composed_alignment(self) -> None:
        first, second = (one.alignment()[None] for one in SOME[:2])
        further = compose(first, invert(second))  # what a portrait of `first` is sampled through
        turned = turn_portraits(tensor(turn_photo(drawn.face(), 0, SOME[0])), further)
        assert made.circle_psnr(turned, tensor(turn_photo(drawn.face(), 0, SOME[1]))) > 27
