"""The attribute vocabulary: what can be asked of a recovered face, and in which forms.

A vector has 18 numbers in the order of `NAMES`: 1 where the face shall have the attribute, 0
where it shall not, nan where nothing is known or asked; a number between says how strongly. People
write a vector as text, `Blond_Hair,Smiling,-Young` (a leading minus is "not"), programs as a
mapping from names to True, False or None.

The names are those of CelebA. The 18 are the ones that show in a 128 x 128 face and that a portrait
leaves open (papers 3.4).
"""

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import SupportsFloat

from face_destyle.errors import UserError

Vector = tuple[float, ...]
Attributes = str | Mapping[str, bool | None] | Iterable[SupportsFloat]


@dataclass(frozen=True)
class Attribute:
    """One attribute.

    Attributes:
        name: CelebA's.
        label: what people read where the face has it.
        opposite: what they read where it has not.
        group: the heading that it stands under.
    """

    name: str
    label: str
    opposite: str
    group: str


# In CelebA's order, which is that of its label file.
ATTRIBUTES = (
    Attribute("5_o_Clock_Shadow", "five o'clock shadow", "no shadow", "facial hair"),
    Attribute("Bald", "bald", "not bald", "hair"),
    Attribute("Bangs", "bangs", "no bangs", "hair"),
    Attribute("Black_Hair", "black hair", "hair not black", "hair colour"),
    Attribute("Blond_Hair", "blond hair", "hair not blond", "hair colour"),
    Attribute("Brown_Hair", "brown hair", "hair not brown", "hair colour"),
    Attribute("Bushy_Eyebrows", "bushy eyebrows", "thin eyebrows", "eyebrows"),
    Attribute("Gray_Hair", "gray hair", "hair not gray", "hair colour"),
    Attribute("Heavy_Makeup", "heavy make-up", "no heavy make-up", "skin"),
    Attribute("Male", "male", "female", "gender"),
    Attribute("Mouth_Slightly_Open", "mouth slightly open", "mouth closed", "expression"),
    Attribute("Mustache", "mustache", "no mustache", "facial hair"),
    Attribute("No_Beard", "no beard", "beard", "facial hair"),
    Attribute("Pale_Skin", "pale skin", "skin not pale", "skin"),
    Attribute("Sideburns", "sideburns", "no sideburns", "facial hair"),
    Attribute("Smiling", "smiling", "not smiling", "expression"),
    Attribute("Wavy_Hair", "wavy hair", "hair not wavy", "hair"),
    Attribute("Young", "young", "old", "age"),
)
NAMES = tuple(attribute.name for attribute in ATTRIBUTES)
BY_NAME = {attribute.name: attribute for attribute in ATTRIBUTES}
COUNT = len(NAMES)
UNKNOWN: Vector = (math.nan,) * COUNT
GROUPS = {
    group: tuple(attribute.name for attribute in ATTRIBUTES if attribute.group == group)
    for group in dict.fromkeys(attribute.group for attribute in ATTRIBUTES)
}

# What no face has together. CelebA's labels bear it out but for few faces: of the 10,309 here 113
# have two hair colours, 7 of the 200 bald ones black hair, 13 of those without a beard a mustache
# or sideburns. Not in the list, because the labels do have it: stubble without a beard (310 of
# 1,166), a bald head with a gray fringe (32 of 200), make-up on a man. What is merely rare stays
# askable.
EXCLUSIONS = (
    ("Black_Hair", "Blond_Hair"),
    ("Black_Hair", "Brown_Hair"),
    ("Black_Hair", "Gray_Hair"),
    ("Blond_Hair", "Brown_Hair"),
    ("Blond_Hair", "Gray_Hair"),
    ("Brown_Hair", "Gray_Hair"),
    ("Bald", "Bangs"),
    ("Bald", "Black_Hair"),
    ("Bald", "Blond_Hair"),
    ("Bald", "Brown_Hair"),
    ("Bald", "Wavy_Hair"),
    ("No_Beard", "Mustache"),
    ("No_Beard", "Sideburns"),
)


def excluded_by(name: str) -> tuple[str, ...]:
    """What a face with the attribute `name` cannot have, in the order of `NAMES`.

    Raises:
        UserError: no attribute of that name.
    """
    check_name(name)
    found = {other for pair in EXCLUSIONS if name in pair for other in pair} - {name}
    return tuple(other for other in NAMES if other in found)


def check_name(name: str) -> None:
    """Raise a UserError with the nearest right names where `name` is no attribute."""
    if name in BY_NAME:
        return
    known = {right.casefold(): right for right in NAMES}
    wanted = name.strip().casefold().replace(" ", "_").replace("-", "_")
    near = [known[key] for key in difflib.get_close_matches(wanted, known, cutoff=0.5)]
    advice = f"did you mean {' or '.join(near)}?" if near else f"use {', '.join(NAMES)}"
    raise UserError(f"no attribute {name!r}: {advice}")


def to_vector(attributes: Attributes) -> Vector:
    """Text, a mapping or 18 numbers -> a vector.

    In text and mapping an attribute that is asked for also says 0 for what it excludes: `Bald`
    alone is the same wish as `Bald,-Bangs`. Numbers are labels of a data set, which know better:
    they are taken as they are, contradictions too.

    Args:
        attributes: such as `"Blond_Hair,-Young"`, `{"Blond_Hair": True, "Young": False}`, or 18
            numbers from 0 to 1 or nan (a list, an array, a tensor `(18,)`).

    Raises:
        UserError: a wrong name, value or number of values, or attributes that exclude each other.
    """
    if isinstance(attributes, str):
        return _from_mapping(_parse(attributes))
    if isinstance(attributes, Mapping):
        return _from_mapping(attributes)
    return _from_numbers(attributes)


def _parse(text: str) -> dict[str, bool]:
    wishes: dict[str, bool] = {}
    for part in text.split(","):
        word = part.strip()
        if not word:
            continue
        wanted = not word.startswith("-")
        name = word.removeprefix("-").strip()
        check_name(name)
        if wishes.setdefault(name, wanted) is not wanted:
            raise UserError(f"{name} and -{name} contradict each other: leave one out")
    return wishes


def _from_mapping(attributes: Mapping[str, bool | None]) -> Vector:
    for name, value in attributes.items():
        check_name(name)
        if value not in (True, False, None):
            raise UserError(f"attribute {name} is {value!r}: use True, False or None")
    for first, second in EXCLUSIONS:
        if attributes.get(first) and attributes.get(second):
            raise UserError(f"{first} and {second} exclude each other: leave one out")
    vector = UNKNOWN
    for name, value in attributes.items():
        if value is False:
            vector = with_attribute(vector, name, value)
    for name, value in attributes.items():
        if value:
            vector = with_attribute(vector, name, value)
    return vector


def _from_numbers(numbers: Iterable[SupportsFloat]) -> Vector:
    try:
        vector = tuple(float(number) for number in numbers)
    except (TypeError, ValueError, RuntimeError) as error:  # torch raises the last for a row
        raise UserError(
            f"attributes are no {COUNT} numbers but {type(numbers).__name__}: "
            "give text such as Smiling,-Young, a mapping, or numbers"
        ) from error
    if len(vector) != COUNT:
        raise UserError(f"{len(vector)} attribute values were given: {COUNT} are needed")
    for name, value in zip(NAMES, vector, strict=True):
        if not (0 <= value <= 1 or math.isnan(value)):
            raise UserError(f"attribute {name} is {value:g}: use 0 to 1, or nan for unknown")
    return vector


def to_mapping(attributes: Attributes) -> dict[str, bool | None]:
    """Any form -> all 18 names, with True (0.5 and above), False or None for unknown.

    Raises:
        UserError: as in `to_vector`.
    """
    vector = to_vector(attributes)
    return {
        name: None if math.isnan(value) else value >= 0.5
        for name, value in zip(NAMES, vector, strict=True)
    }


def to_text(attributes: Attributes) -> str:
    """Any form -> the shortest text that gives the vector back; empty where nothing is known.

    Not written is what something written excludes. A vector that contradicts itself, or that
    leaves open what it excludes, cannot be given back exactly.

    Raises:
        UserError: as in `to_vector`.
    """
    mapping = to_mapping(attributes)
    implied = {other for name in NAMES if mapping[name] for other in excluded_by(name)}
    words = []
    for name, value in mapping.items():
        if value:
            words.append(name)
        elif value is False and name not in implied:
            words.append(f"-{name}")
    return ",".join(words)


def with_attribute(vector: Vector, name: str, value: bool | None) -> Vector:
    """A vector with one attribute set as one does in a form.

    Choosing an attribute turns off what it excludes: black hair goes when blond is chosen.
    Turning one off, or making it unknown, leaves the others as they are.

    Raises:
        UserError: no attribute of that name, or a vector that is none.
    """
    numbers = dict(zip(NAMES, _from_numbers(vector), strict=True))
    off = excluded_by(name) if value else ()
    numbers |= dict.fromkeys(off, 0.0)
    numbers[name] = math.nan if value is None else float(value)
    return tuple(numbers.values())
