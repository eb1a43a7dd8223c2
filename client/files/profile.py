"""ICC profiles: a photo's colours to sRGB, and changes of them back into the photo's own."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Image8 = NDArray[np.uint8]
KEY: Final = "icc_profile"


@dataclass(frozen=True, eq=False)
class OwnColours:
    """A photo in the colours of its profile.

    Attributes:
        image: mode RGB, oriented as shown, without metadata.
        profile: an ICC profile of RGB, which works in both directions.
    """

    image: Image.Image
    profile: bytes

    def canvas(self) -> Image.Image:
        """Return a copy with the profile, which Pillow writes into files."""
        picture = self.image.copy()
        picture.info = {KEY: self.profile}
        return picture

    def to_srgb(self, part: Image.Image) -> Image8:
        """Return a part of a canvas in sRGB: uint8 [h, w, 3]."""
        return _applied(_transforms(self.profile)[0], np.asarray(part))

    def changed(self, part: Image.Image, before: Image8, after: Image8) -> Image8:
        """Return a part of a canvas with a change that was made in sRGB; where nothing changes, it stays exactly.

        Args:
            part: a part of the canvas.
            before: uint8 [h, w, 3], the part in sRGB.
            after: uint8 [h, w, 3], what it becomes.
        """
        back = _transforms(self.profile)[1]
        change = _applied(back, after).astype(np.int16) - _applied(back, before)
        found: Image8 = (np.asarray(part, np.int16) + change).clip(0, 255).astype(np.uint8)
        return found


def own_colours(image: Image.Image, profile: bytes) -> OwnColours | None:
    """Return a photo's own colours; None if they are not RGB, or its profile cannot convert back."""
    if image.mode != "RGB":
        return None
    try:
        _transforms(profile)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    image.info = {}
    return OwnColours(image, profile)


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return an image in sRGB; unchanged if the profile is damaged, or of another colour space."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    return converted if converted is not None else image


def displayed(picture: Image.Image) -> Image.Image:
    """Return a picture of ours in sRGB."""
    profile = picture.info.get(KEY)
    return picture if profile is None else to_srgb(picture, profile)


@lru_cache(maxsize=4)
def _transforms(profile: bytes) -> tuple[ImageCms.ImageCmsTransform, ImageCms.ImageCmsTransform]:
    """Return the transforms to sRGB, and back."""
    own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    return (
        ImageCms.buildTransform(own, srgb, "RGB", "RGB"),
        ImageCms.buildTransform(srgb, own, "RGB", "RGB"),
    )


def _applied(transform: ImageCms.ImageCmsTransform, pixels: Image8) -> Image8:
    found = ImageCms.applyTransform(Image.fromarray(pixels), transform)
    assert found is not None
    return np.asarray(found)
