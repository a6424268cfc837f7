"""The attribute vocabulary: its forms, and what excludes what."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from face_destyle.attributes import (
    ATTRIBUTES,
    COUNT,
    EXCLUSIONS,
    GROUPS,
    NAMES,
    UNKNOWN,
    Vector,
    excluded_by,
    to_mapping,
    to_text,
    to_vector,
    with_attribute,
)
from face_destyle.errors import UserError

ROOT = Path(__file__).parents[1]


def same(first: Vector, second: Vector) -> bool:
    return bool(np.array_equal(first, second, equal_nan=True))


def of(**values: float) -> Vector:
    """A vector with these attributes, the rest unknown."""
    return tuple(values.get(name, math.nan) for name in NAMES)


class TestVocabulary:
    def test_eighteen_in_the_order_of_celeba(self) -> None:
        assert len(NAMES) == COUNT == 18
        assert list(NAMES) == sorted(NAMES, key=str.casefold)
        assert NAMES[0] == "5_o_Clock_Shadow" and NAMES[-1] == "Young"

    def test_every_attribute_is_in_one_group(self) -> None:
        grouped = [name for names in GROUPS.values() for name in names]
        assert sorted(grouped) == sorted(NAMES)
        colours = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")
        assert GROUPS["hair colour"] == colours

    def test_labels_tell_all_apart(self) -> None:
        words = [word for one in ATTRIBUTES for word in (one.label, one.opposite)]
        assert len(set(words)) == 2 * COUNT
        assert not any("_" in word for word in words)

    def test_exclusions(self) -> None:
        assert all(first in NAMES and second in NAMES for first, second in EXCLUSIONS)
        assert len({frozenset(pair) for pair in EXCLUSIONS}) == len(EXCLUSIONS)
        assert excluded_by("Gray_Hair") == ("Black_Hair", "Blond_Hair", "Brown_Hair")
        assert excluded_by("No_Beard") == ("Mustache", "Sideburns")
        assert excluded_by("Bangs") == ("Bald",)
        assert excluded_by("Smiling") == ()

    def test_it_comes_without_torch_and_numpy(self) -> None:
        code = "import sys, face_destyle.attributes; print({'torch', 'numpy'} & set(sys.modules))"
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        assert run.stdout.strip() == "set()"


class TestVector:
    def test_text(self) -> None:
        assert same(to_vector("Smiling,-Young"), of(Smiling=1, Young=0))
        assert same(to_vector(" Smiling , - Young, "), of(Smiling=1, Young=0))
        assert same(to_vector(""), UNKNOWN)

    def test_mapping(self) -> None:
        wishes = {"Smiling": True, "Young": False, "Male": None}
        assert same(to_vector(wishes), of(Smiling=1, Young=0))

    @pytest.mark.parametrize("form", [list, tuple, np.array, torch.tensor])
    def test_numbers(self, form: Any) -> None:
        assert same(to_vector(form(of(Bald=0.25, Young=1))), of(Bald=0.25, Young=1))

    def test_labels_that_contradict_themselves_stay(self) -> None:
        labels = of(Black_Hair=1, Brown_Hair=1)
        assert same(to_vector(labels), labels)

    def test_what_is_excluded_is_off(self) -> None:
        expected = of(Bald=1, Bangs=0, Black_Hair=0, Blond_Hair=0, Brown_Hair=0, Wavy_Hair=0)
        assert same(to_vector("Bald"), expected)
        assert same(to_vector("Bald,-Bangs"), expected)
        assert same(to_vector("-Bangs,Bald"), expected)
        assert same(to_vector({"Bangs": None, "Bald": True}), expected)
        assert same(to_vector("-Bald"), of(Bald=0))

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ("Smilling", r"no attribute 'Smilling': did you mean Smiling\?"),
            ("-blond hair", "no attribute 'blond hair': did you mean Blond_Hair"),
            ("Beard", "did you mean No_Beard"),
            ("Smiling;Young", "no attribute 'Smiling;Young'"),
            ("-", "no attribute '': use 5_o_Clock_Shadow, Bald"),
            ("xyzzy", "no attribute 'xyzzy': use 5_o_Clock_Shadow, .*, Young"),
            ("Smiling,-Smiling", "Smiling and -Smiling contradict each other"),
            ("Gray_Hair,Blond_Hair", "Blond_Hair and Gray_Hair exclude each other"),
            ("Bald,Bangs", "Bald and Bangs exclude each other"),
            ("Mustache,No_Beard", "No_Beard and Mustache exclude each other"),
            ({"Old": True}, "no attribute 'Old'"),
            ({"Young": "no"}, "attribute Young is 'no': use True, False or None"),
            ({"Bald": True, "Wavy_Hair": True}, "Bald and Wavy_Hair exclude each other"),
            ([1.0, 0.0], "2 attribute values were given: 18 are needed"),
            ([0.0] * 17 + [-1.0], "attribute Young is -1: use 0 to 1"),
            ([math.inf] * 18, "attribute 5_o_Clock_Shadow is inf"),
            (["yes"] * 18, "give text such as Smiling,-Young"),
            (torch.zeros(18, 2), "give text such as Smiling,-Young"),
            (None, "give text such as Smiling,-Young"),
            (7, "give text such as Smiling,-Young"),
        ],
    )
    def test_a_mistake_is_one_line(self, wrong: Any, message: str) -> None:
        with pytest.raises(UserError, match=message) as raised:
            to_vector(wrong)
        assert "\n" not in str(raised.value)

    def test_stubble_without_a_beard_can_be_asked_for(self) -> None:
        vector = to_vector("5_o_Clock_Shadow,No_Beard")
        assert same(vector, of(**{"5_o_Clock_Shadow": 1}, No_Beard=1, Mustache=0, Sideburns=0))


class TestBack:
    @pytest.mark.parametrize(
        "text",
        ["", "Smiling", "-Male,-Young", "Blond_Hair,Smiling,-Young", "Bald,No_Beard", "-Bald"],
    )
    def test_text_comes_back(self, text: str) -> None:
        assert to_text(to_vector(text)) == text

    @pytest.mark.parametrize("text", ["Bald,-Smiling", "No_Beard,-Gray_Hair", ""])
    def test_every_form_of_one_wish(self, text: str) -> None:
        vector = to_vector(text)
        assert same(to_vector(to_mapping(vector)), vector)
        assert same(to_vector(to_text(vector)), vector)

    def test_a_complete_vector_comes_back(self) -> None:
        labels = with_attribute((0.0,) * COUNT, "Gray_Hair", True)
        assert same(to_vector(to_text(labels)), labels)

    def test_mapping(self) -> None:
        mapping = to_mapping("Gray_Hair,-Young")
        assert list(mapping) == list(NAMES)
        assert mapping["Gray_Hair"] is True and mapping["Blond_Hair"] is False
        assert mapping["Young"] is False and mapping["Bald"] is None
        assert to_mapping(of(Young=0.4, Male=0.5))["Young"] is False
        assert to_mapping(of(Young=0.4, Male=0.5))["Male"] is True


class TestWithAttribute:
    def test_choosing_turns_off_what_it_excludes(self) -> None:
        black = with_attribute(of(Smiling=1), "Black_Hair", True)
        blond = with_attribute(black, "Blond_Hair", True)
        assert to_text(blond) == "Blond_Hair,Smiling"
        assert to_text(with_attribute(blond, "Bald", True)) == "Bald,-Gray_Hair,Smiling"

    def test_the_others_stay(self) -> None:
        before = of(Young=0.25, Male=1, Black_Hair=1)
        assert same(with_attribute(before, "Young", None), of(Male=1, Black_Hair=1))
        off = with_attribute(before, "Black_Hair", False)
        assert same(off, of(Young=0.25, Male=1, Black_Hair=0))
        assert same(before, of(Young=0.25, Male=1, Black_Hair=1))

    def test_no_sequence_of_clicks_contradicts_itself(self) -> None:
        random = np.random.default_rng(0)
        vector = UNKNOWN
        for _ in range(300):
            name = NAMES[random.integers(COUNT)]
            value = (True, False, None)[random.integers(3)]
            vector = with_attribute(vector, name, value)
            assert to_mapping(vector)[name] is value
            to_vector(to_mapping(vector))

    def test_a_wrong_name(self) -> None:
        with pytest.raises(UserError, match="did you mean Bangs"):
            with_attribute(UNKNOWN, "Bang", True)
