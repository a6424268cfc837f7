"""Make the example pictures of the demo, and those of docs/: `python -m spaces_app.make_examples`.

Drawn faces are this project's own; the photo is NASA's portrait of Eileen Collins, in the public
domain, as scikit-image carries it. Portraits are made from both by the published style networks.
All lie in the frame of the published weights: eyes level at (44.8, 55) and (83.2, 55) of 128.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from face_destyle import AFRP, FaceModel, Stylizer
from face_destyle.faces import FRAME_EYES
from spaces_app.common import TANN
from spaces_app.framing import EXAMPLES
from spaces_app.results import recover_square

SIDE = 256
FINE = 4  # drawn at four times the size, then reduced: smooth edges
TILE = 128
STYLES = ("the-scream", "starry-night", "composition-vii", "udnie")
DOCS = Path(__file__).parents[1] / "docs"
WISHES = ("-Smiling", "Blond_Hair", "Black_Hair", "Gray_Hair", "Mustache,-No_Beard")
ASTRONAUT_EYES = ((203.0, 101.2), (247.2, 103.3))

Colour = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Look:
    """What distinguishes the drawn faces; `hair_length` and `jaw` are in pixels of 128."""

    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour
    clothes: Colour
    wall: Colour
    hair_length: float
    jaw: float
    brow: float
    beard: bool = False


LOOKS = {
    "ana": Look(
        skin=(226, 180, 152),
        hair=(74, 44, 28),
        iris=(86, 110, 84),
        lips=(184, 88, 88),
        clothes=(60, 84, 120),
        wall=(196, 200, 196),
        hair_length=112,
        jaw=112,
        brow=1.5,
    ),
    "ben": Look(
        skin=(134, 90, 64),
        hair=(28, 22, 20),
        iris=(50, 32, 22),
        lips=(128, 70, 66),
        clothes=(214, 206, 188),
        wall=(150, 172, 184),
        hair_length=46,
        jaw=116,
        brow=2.2,
        beard=True,
    ),
    "cleo": Look(
        skin=(240, 206, 178),
        hair=(190, 190, 192),
        iris=(84, 112, 140),
        lips=(196, 116, 110),
        clothes=(112, 50, 62),
        wall=(120, 112, 104),
        hair_length=78,
        jaw=114,
        brow=1.2,
    ),
}


def mix(colour: Colour, other: Colour, share: float) -> Colour:
    """A colour, `share` of the way to another."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


class Canvas:
    """A picture drawn in the coordinates of the 128 frame."""

    def __init__(self, background: Colour):
        """Start with a plain background."""
        self.scale = SIDE * FINE / 128
        self.picture = Image.new("RGB", (SIDE * FINE, SIDE * FINE), background)

    def _mask(self) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        mask = Image.new("L", self.picture.size, 0)
        return mask, ImageDraw.Draw(mask)

    def _paint(
        self, mask: Image.Image, colour: Colour, blur: float, within: Image.Image | None
    ) -> Image.Image:
        if blur:
            # Blurring is done small: a wide radius at full size is slow.
            small = mask.resize((SIDE, SIDE), Image.Resampling.BOX)
            small = small.filter(ImageFilter.GaussianBlur(blur * SIDE / 128))
            mask = small.resize(self.picture.size, Image.Resampling.BILINEAR)
        if within is not None:
            mask = ImageChops.multiply(mask, within)
        self.picture.paste(colour, mask=mask)
        return mask

    def ellipse(
        self,
        centre: Point,
        radii: Point,
        colour: Colour,
        blur: float = 0,
        within: Image.Image | None = None,
        opacity: int = 255,
    ) -> Image.Image:
        """Paint an ellipse, soft where `blur` > 0, inside the mask `within`; return its mask."""
        mask, draw = self._mask()
        (x, y), (a, b), s = centre, radii, self.scale
        draw.ellipse([(x - a) * s, (y - b) * s, (x + a) * s, (y + b) * s], fill=opacity)
        return self._paint(mask, colour, blur, within)

    def polygon(
        self,
        points: Sequence[Point],
        colour: Colour,
        blur: float = 0,
        within: Image.Image | None = None,
        opacity: int = 255,
    ) -> Image.Image:
        """Paint a polygon, like `ellipse`."""
        mask, draw = self._mask()
        draw.polygon([(x * self.scale, y * self.scale) for x, y in points], fill=opacity)
        return self._paint(mask, colour, blur, within)


def oval(centre: Point, half_width: float, top: float, bottom: float, chin: float) -> list[Point]:
    """The outline of a head: an ellipse whose lower half narrows towards the chin."""
    points = []
    for step in range(120):
        angle = 2 * math.pi * step / 120
        x, y = math.cos(angle), math.sin(angle)
        reach = bottom - centre[1] if y > 0 else centre[1] - top
        narrow = 1 - chin * max(0.0, y) ** 3
        points.append((centre[0] + half_width * x * narrow, centre[1] + reach * y))
    return points


def curve(start: Point, end: Point, rise: float, thickness: float) -> list[Point]:
    """A crescent from start to end, `rise` high in its middle: brows, lids, lips."""
    steps = [step / 24 for step in range(25)]
    (x0, y0), (x1, y1) = start, end
    along = [(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t) for t in steps]
    bend = [4 * t * (1 - t) for t in steps]
    upper = [(x, y - rise * b) for (x, y), b in zip(along, bend, strict=True)]
    lower = [(x, y - (rise - thickness) * b) for (x, y), b in zip(along, bend, strict=True)]
    return upper + lower[::-1]


def draw_face(look: Look) -> Image.Image:
    """Draw a face in the frame; returns a `SIDE` x `SIDE` picture."""
    canvas = Canvas(look.wall)
    dark, light = (30, 16, 14), (255, 246, 236)
    canvas.ellipse((20, 20), (70, 60), mix(look.wall, light, 0.35), blur=24)
    shade = mix(look.skin, (70, 26, 20), 0.42)
    hair_shine = mix(look.hair, light, 0.22)
    # Hair behind the head, neck, clothes.
    canvas.polygon(oval((64, 52), 43, 4, look.hair_length, -0.1), look.hair, blur=0.7)
    canvas.polygon([(49, 90), (79, 90), (83, 128), (45, 128)], shade, blur=0.8)
    canvas.ellipse((64, 139), (58, 24), look.clothes, blur=0.7)
    canvas.ellipse((64, 116), (15, 8), shade, blur=1.2)
    for side in (-1, 1):
        canvas.ellipse((64 + side * 36, 66), (4.5, 9), mix(look.skin, shade, 0.4), blur=0.6)
    # The head and its light: from the upper left.
    head = canvas.polygon(oval((64, 58), 35.5, 12, look.jaw, 0.34), look.skin, blur=0.5)
    canvas.ellipse((104, 84), (24, 50), shade, blur=9, within=head, opacity=170)
    canvas.ellipse((64, 122), (36, 12), shade, blur=5, within=head, opacity=150)
    canvas.ellipse((52, 34), (20, 12), mix(look.skin, light, 0.5), blur=8, within=head, opacity=190)
    blush = mix(look.skin, look.lips, 0.35)
    for cheek in (44, 85):
        canvas.ellipse((cheek, 77), (9, 7), blush, blur=5, within=head, opacity=170)
    if look.beard:
        beard = oval((64, 84), 33, 86, look.jaw + 1, 0.3)
        canvas.polygon(beard, mix(look.hair, look.skin, 0.2), blur=3, within=head, opacity=225)
        canvas.ellipse((64, 85.5), (15, 3), look.hair, blur=1.5, within=head, opacity=170)
    for x, y in FRAME_EYES:
        draw_eye(canvas, (x, y), look, shade, dark)
    draw_nose_and_mouth(canvas, look, shade, dark)
    # Hair over the forehead.
    fringe = [(28, 52), (30, 30), (46, 16), (64, 10), (84, 13), (99, 30), (100, 54)]
    fringe += [(95, 40), (86, 27), (70, 23), (52, 29), (38, 36), (33, 46)]
    canvas.polygon(fringe, look.hair, blur=0.9)
    canvas.polygon(curve((40, 26), (84, 17), 6, 2.5), hair_shine, blur=1.6, opacity=170)
    return canvas.picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def draw_eye(canvas: Canvas, centre: Point, look: Look, shade: Colour, dark: Colour) -> None:
    """Socket, white, iris, pupil, light, lids and brow around one eye."""
    x, y = centre
    outward = -1 if x < 64 else 1
    inner, outer = (x - outward * 8.6, y + 0.8), (x + outward * 8.8, y - 0.2)
    canvas.ellipse((x, y - 3), (11, 7), shade, blur=3.5, opacity=150)
    lids = curve(inner, outer, 4.6, 4.6) + curve(inner, outer, -3.2, -3.2)[:25][::-1]
    white = canvas.polygon(lids, (240, 235, 230), blur=0.3)
    canvas.ellipse((x, y - 0.4), (4, 4), mix(look.iris, dark, 0.35), blur=0.2, within=white)
    canvas.ellipse((x, y - 0.4), (3.3, 3.3), look.iris, blur=0.3, within=white)
    canvas.ellipse((x, y - 0.4), (1.7, 1.7), (12, 8, 8), within=white)
    canvas.ellipse((x - 1.3, y - 1.8), (0.8, 0.8), (255, 255, 255), blur=0.1)
    canvas.polygon(curve(inner, outer, 5.2, 1.7), dark, blur=0.4)
    canvas.polygon(curve(inner, outer, 8.2, 0.9), mix(shade, dark, 0.4), blur=0.5, opacity=200)
    canvas.polygon(curve(inner, outer, -3.6, -0.7), shade, blur=0.4)
    start, end = (x - outward * 9.5, y - 8.6), (x + outward * 11, y - 7.8)
    canvas.polygon(curve(start, end, 4.4, look.brow + 1.2), mix(look.hair, dark, 0.3), blur=0.6)


def draw_nose_and_mouth(canvas: Canvas, look: Look, shade: Colour, dark: Colour) -> None:
    """Bridge, nostrils, lips and the shadow below them."""
    light = mix(look.skin, (255, 248, 238), 0.5)
    canvas.polygon([(67, 54), (70, 54), (73, 78), (66, 80)], shade, blur=2.2, opacity=170)
    canvas.polygon([(62, 52), (64.5, 52), (65.5, 74), (62, 74)], light, blur=1.8, opacity=170)
    canvas.ellipse((64, 78.4), (8, 3), shade, blur=1.8, opacity=200)
    canvas.ellipse((63, 75), (3.4, 2.6), light, blur=1.5, opacity=170)
    for x in (59.6, 68.4):
        canvas.ellipse((x, 79.2), (1.9, 1.1), mix(shade, dark, 0.65), blur=0.6)
    upper = mix(look.lips, dark, 0.16)
    canvas.polygon(curve((51.5, 91.4), (76.5, 91.4), 3.6, 5.2), upper, blur=0.5)
    canvas.polygon(curve((51.5, 91.4), (76.5, 91.4), -6, -5.2), look.lips, blur=0.5)
    canvas.ellipse((62, 94.6), (5, 1), mix(look.lips, light, 0.5), blur=0.9)
    canvas.polygon(curve((50.5, 91.2), (77.5, 91.2), -1.1, -1.6), mix(upper, dark, 0.6), blur=0.3)
    canvas.ellipse((64, 100), (8, 1.6), shade, blur=1.6, opacity=170)


def astronaut() -> Image.Image:
    """The face of skimage's astronaut, turned and scaled so that its eyes lie in the frame."""
    from skimage import data  # only this script needs it; it comes with the extra `dev`

    scale = SIDE / 128
    left, right = (complex(x * scale, y * scale) for x, y in FRAME_EYES)
    source_left, source_right = (complex(x, y) for x, y in ASTRONAUT_EYES)
    turn = (source_right - source_left) / (right - left)
    shift = source_left - turn * left
    matrix = (turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag)
    return Image.fromarray(data.astronaut()).transform(
        (SIDE, SIDE), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC
    )


def turned(photo: Image.Image, degrees: float, size: float, across: float) -> Image.Image:
    """A photo turned clockwise, smaller by `size`, and shifted to the right by part of its side.

    What comes in at the edges is the photo mirrored.
    """
    edge = photo.width // 2
    wide = Image.fromarray(np.pad(np.asarray(photo), ((edge,) * 2, (edge,) * 2, (0, 0)), "reflect"))
    middle, angle = wide.width / 2, math.radians(degrees)
    cos, sin = math.cos(angle) / size, math.sin(angle) / size
    x, y = photo.width * (0.5 + across), photo.height / 2
    matrix = (cos, sin, middle - cos * x - sin * y, -sin, cos, middle + sin * x - cos * y)
    return wide.transform(photo.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)


def two_portraits(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two portraits of 128 x 128 on a wall, in narrow frames."""
    wall = Image.new("RGB", (400, 240), (206, 200, 188))
    draw = ImageDraw.Draw(wall)
    for portrait, (x, y) in ((left, (40, 60)), (right, (232, 52))):
        draw.rectangle((x - 8, y - 8, x + TILE + 7, y + TILE + 7), fill=(92, 66, 44))
        wall.paste(portrait, (x, y))
    return wall


def write_further(photos: dict[str, Image.Image]) -> None:
    """Write turned-*.png, tiny-*.png and whole-*.png."""
    for name, degrees, size, across in (
        ("ana-the-scream", 25, 0.85, 0.04),
        ("ben-starry-night", -20, 0.9, -0.03),
        ("cleo-udnie", 38, 0.85, 0),
    ):
        leaning = turned(Image.open(EXAMPLES / f"portrait-{name}.png"), degrees, size, across)
        leaning.save(EXAMPLES / f"turned-{name}.png", optimize=True)
    for name, degrees in (("astronaut", 8), ("ana", -14), ("cleo", 0)):
        small = turned(photos[name], degrees, 0.95, 0).resize((24, 24), Image.Resampling.LANCZOS)
        small.save(EXAMPLES / f"tiny-{name}.png", optimize=True)
    left, right = (
        Image.open(EXAMPLES / f"portrait-{name}.png") for name in ("ana-the-scream", "cleo-udnie")
    )
    two_portraits(left, right).save(EXAMPLES / "whole-two-portraits.png", optimize=True)


def main() -> None:
    """Write photo-*.png, portrait-*.png and the other inputs of the tabs."""
    EXAMPLES.mkdir(exist_ok=True)
    photos = {"astronaut": astronaut(), **{name: draw_face(look) for name, look in LOOKS.items()}}
    for name, photo in photos.items():
        save_small(photo, EXAMPLES / f"photo-{name}.png")
    portraits = [
        ("astronaut", "the-scream"),
        ("astronaut", "composition-vii"),
        ("ana", "the-scream"),
        ("ben", "starry-night"),
        ("cleo", "udnie"),
    ]
    for name, style in portraits:
        # At the size of the frame: strokes have the scale that the recovery network knows.
        portrait = Stylizer.from_pretrained(f"style-{style}").stylize(photos[name], 128)
        portrait.save(EXAMPLES / f"portrait-{name}-{style}.png", optimize=True)
    write_further(photos)
    DOCS.mkdir(exist_ok=True)
    draw_sheet(photos).save(DOCS / "faces.png", optimize=True)
    draw_edits().save(DOCS / "attributes.png", optimize=True)
    draw_tiny().save(DOCS / "tiny.png", optimize=True)


def draw_sheet(photos: dict[str, Image.Image]) -> Image.Image:
    """Portraits in the four published styles, and below each the face recovered from it."""
    model = FaceModel.from_pretrained("fdnn")
    names = list(photos)
    sheet = Image.new("RGB", (2 * len(STYLES) * TILE, 2 * TILE), "white")
    for column in range(2 * len(STYLES)):
        style = STYLES[column % len(STYLES)]
        # The second half shows each style on the next face.
        name = names[(column + column // len(STYLES)) % len(names)]
        portrait = Stylizer.from_pretrained(f"style-{style}").stylize(photos[name], TILE)
        sheet.paste(portrait, (column * TILE, 0))
        sheet.paste(model.recover(portrait), (column * TILE, TILE))
    return sheet


def draw_edits() -> Image.Image:
    """A portrait, the face recovered from it, and that face as it is asked for otherwise."""
    portrait = Image.open(EXAMPLES / "portrait-astronaut-the-scream.png")
    model = AFRP.from_pretrained("fdnn-afrp")
    faces = [model.recover(portrait, attributes=wish) for wish in ("", *WISHES)]
    return in_a_row([portrait, *faces])


def draw_tiny() -> Image.Image:
    """The astronaut in 24 x 24 pixels, in the 16 x 16 that the network sees, and recovered."""
    tiny = Image.open(EXAMPLES / "tiny-astronaut.png").convert("RGB")
    outcome = recover_square(TANN, tiny)
    shown = tiny.resize((TILE, TILE), Image.Resampling.NEAREST)
    return in_a_row([shown, outcome.seen, outcome.face])


def in_a_row(tiles: list[Image.Image]) -> Image.Image:
    """Tiles side by side."""
    sheet = Image.new("RGB", (len(tiles) * TILE, TILE))
    for column, tile in enumerate(tiles):
        sheet.paste(tile, (column * TILE, 0))
    return sheet


def save_small(picture: Image.Image, path: Path) -> None:
    """Save a photo with a palette of 256: a third of the size, and it looks the same here."""
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
