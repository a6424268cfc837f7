"""Colour profiles: what the numbers of a picture mean, told in sRGB."""

import io

import numpy as np
from PIL import Image, ImageCms

# The mode in which pictures of a mode go through a profile, by the space that the profile is of.
MODES = {
    "RGB": dict.fromkeys(("RGB", "RGBA", "RGBX", "RGBa", "P", "PA"), "RGB"),
    "GRAY": dict.fromkeys(("L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N"), "L"),
    "CMYK": {"CMYK": "CMYK"},
}
Transform = ImageCms.ImageCmsTransform
ROUNDING = 2  # of 255: what changes no colour by more is sRGB


def to_srgb(picture: Image.Image) -> Transform | None:
    """What brings the colours of a picture to sRGB, by its profile.

    Returns:
        For `applied`; None where the picture has no profile, one that says sRGB, or one that
        cannot be used.
    """
    content = picture.info.get("icc_profile")
    if not content:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        mode = MODES[profile.profile.xcolor_space.strip()].get(picture.mode)
        if mode is None:
            return None
        srgb = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(profile, srgb, mode, "RGB")
        return transform if _changes(transform) else None
    except Exception:  # damaged in one of many ways: the picture itself can be read
        return None


def applied(transform: Transform, picture: Image.Image) -> Image.Image:
    """The picture as RGB, in sRGB; transparency is left out."""
    return transform.apply(picture.convert(transform.input_mode))


def _changes(transform: Transform) -> bool:
    """Most profiles are sRGB's own: their pictures stay as they are, to the last bit."""
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    bands = len(Image.new(transform.input_mode, (1, 1)).getbands())
    colours = np.stack(np.meshgrid(*[levels] * bands), -1)
    size = (len(levels), colours.size // len(levels) // bands)
    probe = Image.frombytes(transform.input_mode, size, colours.tobytes())
    before, after = (np.asarray(p, int) for p in (probe.convert("RGB"), applied(transform, probe)))
    return bool(np.abs(after - before).max() > ROUNDING)
