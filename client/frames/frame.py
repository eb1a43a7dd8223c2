"""``Frame``: a square of a photo, of any place, size and rotation, as a similarity transform.

Photo coordinates are continuous: x to the right, y down, and pixel (0, 0) covers [0, 1] x [0, 1]. The unit square
[0, 1] x [0, 1] is the generator's image, its upper left corner at (0, 0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from client.errors import PhotoError
from client.limits import MIN_SIDE
from client.text import quoted

Kind = Literal["aligned", "upright", "square", "crop"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
Points = NDArray[np.float64]
# Sides above this are no photo's: the numbers of a file can be anything.
_MAX_SIDE: Final = 1e6
# A face's eyes and mouth make an angle of 90 degrees, seen from the front; in profile less.
_MIN_SINE: Final = 0.3
_MIN_DISTANCE: Final = 1.0
_ROUNDING: Final = 1e-6


@dataclass(frozen=True)
class Frame:
    """A square of a photo.

    Attributes:
        kind: the rule that made it: ``aligned``, ``upright``, ``square`` or ``crop``.
        x, y: its upper left corner, in pixels of the photo as shown.
        dx, dy: from the upper left to the upper right corner, in pixels; dy is 0 where the square is not rotated.

    Raises:
        PhotoError: a number is not finite or too large for a photo, the square has no size, or it is rotated and not
            ``aligned``.
    """

    kind: Kind
    x: float
    y: float
    dx: float
    dy: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise PhotoError(f"unknown frame {quoted(str(self.kind), limit=40)}: expected {', '.join(KINDS)}")
        if not all(math.isfinite(v) and abs(v) <= _MAX_SIDE for v in (self.x, self.y, self.dx, self.dy)):
            raise PhotoError(f"the {self.kind} frame has numbers that are not finite or too large for a photo")
        if not self.side or (self.kind != "aligned" and (self.dy or self.dx < 0)):
            raise PhotoError(f"the {self.kind} frame has no size, or is rotated")

    @classmethod
    def square(cls, size: tuple[int, int]) -> Frame:
        """Return the largest centred square of a photo of ``size`` (width, height), on whole pixels."""
        width, height = size
        side = min(size)
        return cls("square", (width - side) // 2, (height - side) // 2, side)

    @classmethod
    def aligned(cls, landmarks: ArrayLike) -> Frame:
        """Return the square that FFHQ shows of a face: the face upright, of one size, in one place.

        This is the rule of Karras et al. (arXiv 1710.10196, appendix C, and FFHQ's published script).

        Args:
            landmarks: float [5, 2], x and y in pixels of the photo of the eye at the left of the image, the other eye,
                the nose's tip, the mouth's corner at the left, the other corner.

        Raises:
            PhotoError: the landmarks make no face.
        """
        points = _face(landmarks)
        eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
        across, down = points[1] - points[0], mouth - eyes
        # Half of the eyes' line, and half of the line from the eyes to the mouth, turned onto it.
        along = across + np.array([down[1], -down[0]])
        along *= max(4.0 * np.hypot(*across), 3.6 * np.hypot(*down)) / np.hypot(*along)
        return cls._around("aligned", eyes + 0.1 * down, along)

    @classmethod
    def upright(cls, landmarks: ArrayLike) -> Frame:
        """Return the square of ``aligned`` without its rotation: the same middle and size, the face tilted as it is.

        Raises:
            PhotoError: the landmarks make no face.
        """
        found = cls.aligned(landmarks)
        return cls._around("upright", found.middle, np.array([found.side, 0.0]))

    @classmethod
    def crop(cls, x: float, y: float, size: float) -> Frame:
        """Return the square whose upper left corner is at ``(x, y)``.

        Raises:
            PhotoError: the size is not above 0.
        """
        if size <= 0:
            raise PhotoError(f"the crop {x:g},{y:g},{size:g} is too small: its side must be at least {MIN_SIDE} pixels")
        return cls("crop", x, y, size)

    @classmethod
    def parse_crop(cls, text: str) -> Frame:
        """Read ``x,y,size``.

        Raises:
            PhotoError: the text is not three whole numbers.
        """
        try:
            x, y, size = (int(part) for part in text.split(","))
        except ValueError as problem:
            raise PhotoError(
                f"invalid crop {quoted(text)}: expected x,y,size in whole pixels, for example 40,0,512"
            ) from problem
        return cls.crop(x, y, size)

    @classmethod
    def decode(cls, text: str) -> Frame:
        """Read what ``encode`` writes: ``kind,x,y,dx,dy``.

        Raises:
            PhotoError: it is something else.
        """
        kind, *numbers = text.split(",")
        try:
            x, y, dx, dy = map(float, numbers)
        except ValueError as problem:
            raise PhotoError(f"invalid frame {quoted(text, limit=80)}: expected kind,x,y,dx,dy") from problem
        return cls(kind, x, y, dx, dy)  # type: ignore[arg-type]

    def encode(self) -> str:
        """Return ``kind,x,y,dx,dy``, with every digit."""
        return ",".join((self.kind, *(repr(float(v)) for v in (self.x, self.y, self.dx, self.dy))))

    def __str__(self) -> str:
        """Return it for a message: its kind, place, size and rotation."""
        numbers = f"{self.x:.6g},{self.y:.6g},{self.side:.6g}"
        return f"{self.kind} {numbers} (x,y,size)" + (f" rotated by {self.angle:.1f} degrees" if self.dy else "")

    @property
    def side(self) -> float:
        """Length of its sides in pixels of the photo."""
        return math.hypot(self.dx, self.dy)

    @property
    def angle(self) -> float:
        """Its rotation in degrees, from -180 to 180; positive is clockwise in the photo."""
        return math.degrees(math.atan2(self.dy, self.dx))

    def turned(self, degrees: float) -> Frame:
        """Return the ``aligned`` square turned clockwise about its middle."""
        turn = math.radians(degrees)
        rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        return self._around("aligned", self.middle, rotation @ np.array([self.dx, self.dy]))

    def of_face(self, transform: NDArray[np.float32]) -> Frame:
        """Return the ``aligned`` square of a face that lies in this one as :func:`transform_between` says."""
        if self.kind == "aligned":
            return self
        back = np.linalg.inv(np.vstack([transform, [0, 0, 1]]).astype(np.float64))
        middle, right = ((back @ (x, 0, 1))[:2] / 2 + 0.5 for x in (0, 1))
        middle, right = self.to_photo([middle, right])
        return self._around("aligned", middle, 2 * (right - middle))

    def holds(self, point: ArrayLike) -> bool:
        """Whether a point of the photo, float [2], lies in it."""
        place = self.to_square(np.asarray(point)[None])
        return bool(((place >= 0) & (place <= 1)).all())

    @property
    def middle(self) -> Points:
        """Its middle in the photo, float64 [2]."""
        found: Points = self.to_photo([[0.5, 0.5]])[0]
        return found

    @property
    def corners(self) -> Points:
        """Its corners in the photo, float64 [4, 2]: upper left, upper right, lower right, lower left."""
        return self.to_photo([[0, 0], [1, 0], [1, 1], [0, 1]])

    @property
    def matrix(self) -> Points:
        """The transform from the photo to the unit square, float64 [2, 3]: ``p @ m[:, :2].T + m[:, 2]``."""
        a, b = self.dx / self.side**2, self.dy / self.side**2
        return np.array([[a, b, -a * self.x - b * self.y], [-b, a, b * self.x - a * self.y]])

    @property
    def inverse(self) -> Points:
        """The transform from the unit square to the photo, float64 [2, 3]."""
        return np.array([[self.dx, -self.dy, self.x], [self.dy, self.dx, self.y]])

    def to_square(self, points: ArrayLike) -> Points:
        """Return points of the photo, float [N, 2], in the unit square: float64 [N, 2]."""
        return _moved(points, self.matrix)

    def to_photo(self, points: ArrayLike) -> Points:
        """Return points of the unit square, float [N, 2], in the photo: float64 [N, 2]."""
        return _moved(points, self.inverse)

    def within(self, size: tuple[int, int]) -> bool:
        """Whether all of it lies in a photo of ``size`` (width, height)."""
        corners = self.corners
        # Rounding must not make a square at the photo's edge reach outside.
        return bool((corners >= -_ROUNDING).all() and (corners <= np.add(size, _ROUNDING)).all())

    def shows(self, size: tuple[int, int]) -> bool:
        """Whether it shows enough of a photo of ``size`` (width, height).

        Rules that find a face may reach outside, by a quarter of the side for their middle; other squares may not.
        """
        if self.kind in ("square", "crop"):
            return self.within(size)
        return float(np.maximum(-self.middle, self.middle - size).max()) <= self.side / 4

    def require_photo(self, size: tuple[int, int], *, name: str) -> None:
        """Refuse a frame that does not go with a photo of ``size`` (width, height) called ``name``.

        Raises:
            PhotoError: its side is below ``MIN_SIDE``, or it does not show enough of the photo.
        """
        if self.side < MIN_SIDE:
            raise PhotoError(f"the {self} is too small: its side must be at least {MIN_SIDE} pixels")
        if not self.shows(size):
            where = "shows hardly any of" if self.kind in ("aligned", "upright") else "does not lie within"
            raise PhotoError(f"the {self} {where} {quoted(name)}, which is {size[0]}x{size[1]} pixels")

    @classmethod
    def _around(cls, kind: Kind, middle: Points, along: Points) -> Frame:
        """A frame by its middle and its upper side, float [2] each."""
        down = np.array([-along[1], along[0]])
        x, y = middle - along / 2 - down / 2
        return cls(kind, float(x), float(y), float(along[0]), float(along[1]))


def transform_between(frame: Frame, other: Frame) -> NDArray[np.float32]:
    """Return the transform from places in one frame to those in another, both from -1 to 1: float32 [2, 3].

    Exactly the identity between equal frames.
    """
    if frame == other:
        return np.eye(2, 3, dtype=np.float32)
    there = other.to_square(frame.to_photo([[0.5, 0.5], [1, 0.5], [0.5, 1]])) * 2 - 1
    return np.stack([there[1] - there[0], there[2] - there[0], there[0]], axis=1).astype(np.float32)


def fault(landmarks: ArrayLike) -> str | None:
    """Return why landmarks, float [5, 2] as for ``Frame.aligned``, make no face; None where they do."""
    points = np.asarray(landmarks, np.float64)
    if points.shape != (5, 2):
        return f"expected 5 points, not {list(points.shape)} numbers"
    if not np.isfinite(points).all():
        return "a number is not finite"
    across = points[1] - points[0]
    down = points[3:].mean(axis=0) - points[:2].mean(axis=0)
    lengths = np.hypot(*across), np.hypot(*down)
    if min(lengths) < _MIN_DISTANCE:
        return "the eyes, or the eyes and the mouth, are in one place"
    sine = (across[0] * down[1] - across[1] * down[0]) / (lengths[0] * lengths[1])
    if sine < -_MIN_SINE:
        return "the eyes are mirrored"
    return "the eyes and the mouth are on one line" if sine < _MIN_SINE else None


def _face(landmarks: ArrayLike) -> Points:
    if why := fault(landmarks):
        raise PhotoError(f"the landmarks make no face: {why}")
    return np.asarray(landmarks, np.float64)


def _moved(points: ArrayLike, matrix: Points) -> Points:
    found: Points = np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return found
