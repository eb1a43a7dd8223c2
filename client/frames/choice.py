"""Which frames of a photo are meant: ``--frame`` and ``--face``, and what they come to for the faces of a photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from client.errors import ParameterError, PhotoError
from client.frames.face import Face
from client.frames.frame import Frame
from client.text import quoted
from protocol.roles import MAX_FACES

Rule = Literal["auto", "aligned", "upright", "square"]
RULES: Final[tuple[Rule, ...]] = get_args(Rule)
LARGEST: Final = "largest"
ALL: Final = "all"
# What `auto` is where there is a face, by measurement: docs/quality.md.
AUTO: Final = "aligned"
MORE_FACES: Final = f"there may be more faces: at most {MAX_FACES} are found, the clearest"


@dataclass(frozen=True)
class Wanted:
    """What was asked for.

    Attributes:
        frame: a rule, or a frame.
        face: ``largest``, ``all``, or a number from 1, the largest face, on.
    """

    frame: Rule | Frame = "auto"
    face: int | str = LARGEST

    @classmethod
    def parse(cls, frame: str | None, face: str | None, *, flag: str = "--face") -> Wanted:
        """Read ``auto``, ``aligned``, ``upright``, ``square`` or ``x,y,size``; and ``largest``, ``all`` or a number.

        Args:
            frame: the first of them; None is ``auto``.
            face: the second; None is ``largest``.
            flag: the option of the second, for messages.

        Raises:
            ParameterError: it is none of them, or a face is asked for that the frame does not need.
            PhotoError: the crop is malformed.
        """
        rule: Rule | Frame
        if frame is None or frame in RULES:
            rule = "auto" if frame is None else frame
        elif "," in frame:
            rule = Frame.parse_crop(frame)
        else:
            raise ParameterError(f"unknown frame {quoted(frame, limit=40)}: expected {', '.join(RULES)} or x,y,size")
        if face is None or face in (LARGEST, ALL):
            chosen: int | str = face or LARGEST
        elif face.isascii() and face.isdecimal() and 0 < len(face) < 7 and int(face) > 0:
            chosen = int(face)
        else:
            raise ParameterError(f"invalid face {quoted(face, limit=40)}: expected {LARGEST}, {ALL} or a number from 1")
        if face is not None and (isinstance(rule, Frame) or rule == "square"):
            raise ParameterError(f"a crop or a square needs no face: leave {flag} out, or pass another --frame")
        return cls(rule, chosen)

    @property
    def needs_faces(self) -> bool:
        """Whether the photo's faces have to be found."""
        return self.frame in ("auto", "aligned", "upright")


@dataclass(frozen=True)
class Framing:
    """The frames of a photo.

    Attributes:
        frames: at least one.
        numbers: the number of the face in each frame, from 1; empty if no face was looked for or found.
        note: a sentence for the user where it is not quite what was asked for; usually nothing.
    """

    frames: tuple[Frame, ...]
    numbers: tuple[int, ...] = ()
    note: str = ""


def framing(wanted: Wanted, size: tuple[int, int], faces: Sequence[Face] | None, *, name: str) -> Framing:
    """Return the frames that are meant.

    Args:
        wanted: what was asked for.
        size: width and height of the photo.
        faces: the largest first; None where the server has no finder for this domain.
        name: the photo's name.

    Raises:
        PhotoError: there is no face, or not the one that was asked for; or it is not usable.
    """
    if isinstance(wanted.frame, Frame) or wanted.frame == "square":
        frame = wanted.frame if isinstance(wanted.frame, Frame) else Frame.square(size)
        frame.require_photo(size, name=name)
        return Framing((frame,))
    if not faces:
        why = "no face found" if faces is not None else "the server has no face finder for this domain"
        if wanted.frame == "auto" and not isinstance(wanted.face, int):
            return Framing((Frame.square(size),), note=f"{why}: inverting the centred square")
        raise PhotoError(f"cannot frame {quoted(name)}: {why}: pass --frame square or --frame x,y,size")
    rule = AUTO if wanted.frame == "auto" else wanted.frame
    make = Frame.aligned if rule == "aligned" else Frame.upright
    frames: dict[int, Frame] = {}
    problems: dict[int, PhotoError] = {}
    for number in _numbers(wanted, faces, name):
        try:
            frame = make(faces[number - 1].landmarks)
            frame.require_photo(size, name=name)
        except PhotoError as problem:
            problems[number] = problem
            continue
        frames[number] = frame
        if wanted.face == LARGEST:
            break
    if not frames:
        number, first = next(iter(problems.items()))
        raise PhotoError(f"face {number} of {quoted(name)} cannot be framed: {first}") from first
    notes = []
    if wanted.face == ALL and problems:
        notes.append(f"{len(problems)} of the faces cannot be framed, and are left out")
    if wanted.face == ALL and len(faces) >= MAX_FACES:
        notes.append(MORE_FACES)
    return Framing(tuple(frames.values()), tuple(frames), "; ".join(notes))


def _numbers(wanted: Wanted, faces: Sequence[Face], name: str) -> Sequence[int]:
    """Return the faces that may be meant."""
    if not isinstance(wanted.face, int):
        return range(1, len(faces) + 1)
    if wanted.face > len(faces):
        there = "1 face" if len(faces) == 1 else f"{len(faces)} faces"
        raise PhotoError(f"there is no face {wanted.face} in {quoted(name)}, which shows {there}")
    return [wanted.face]
