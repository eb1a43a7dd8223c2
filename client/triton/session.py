"""The conversation with one Triton about one domain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from tenacity import AsyncRetrying

from client.errors import (
    AnswerRefused,
    GeneratorMismatch,
    ModelMissing,
    ParameterError,
    ServerTimeout,
    ServerUnavailable,
)
from client.files.direction import Direction
from client.files.face_styles import FaceStyles
from client.files.faithful import Faithful
from client.files.inversion import Inversion
from client.files.photo import Photo
from client.frames.face import LOOK_SIDE, LOOKS, Face, faces_of, look_at, pose_in, seen_again, shrunk
from client.frames.frame import Frame
from client.frames.pose import Pose
from client.text import shown
from client.triton.checks import (
    checked_domain,
    checked_method,
    checked_sample,
    checked_strengths,
    fault,
    generator_of,
    number_of,
    side_of,
    spec_of,
    started,
)
from client.triton.status import MORE, MORE_CUTS, SHARED, InversionResult, ModelStatus, Status
from client.triton.transport import Array, AsyncTransport, ModelConfig, ServerInfo
from client.version import version
from client.wire.retry import ATTEMPTS, policy, remaining
from client.wire.timeout import Timeout
from protocol.cuts import DEFAULT_CUT, prefix
from protocol.methods import DEFAULT
from protocol.roles import FACE_FINDER, MAX_STRENGTHS, ROLES

T = TypeVar("T")
Image8 = NDArray[np.uint8]
# Photos whose faces are remembered: as many as a batch has in progress, and more.
_REMEMBERED: Final = 64


class AsyncSession:
    """Asks Triton about one domain, and remembers what it said about its models.

    Args:
        transport: to the server.
        domain: the domain of its generator.
        timeout: deadlines in seconds.
    """

    def __init__(self, transport: AsyncTransport, *, domain: str, timeout: Timeout) -> None:
        self.domain = checked_domain(domain)
        self.timeout = timeout
        self._transport = transport
        self._reached = False
        self._server: ServerInfo | None = None
        self._configs: dict[str, ModelConfig] = {}
        self._faces: dict[tuple[str, tuple[int, int]], list[Face]] = {}

    async def invert(
        self,
        photo: Photo,
        frame: Frame | None,
        *,
        method: str = DEFAULT,
        cut: int | None = None,
    ) -> InversionResult:
        """Photo to the start of a method, and its reconstruction.

        With an encoder that is one request, and one to the face finder where a frame does not say where its face is:
        edits move ``f`` there.
        """
        start, cut = checked_method(method, cut)
        frame = frame or Frame.square(photo.size)
        frame.require_photo(photo.size, name=photo.name)
        config = await self._config("invert" if start == "encoder" else "encoder", cut)
        server = await self._info()
        pixels = await asyncio.to_thread(photo.pixels, frame, side_of(config, "image"))
        styles = None
        if start == "encoder":
            inputs: dict[str, Array] = {"image": pixels}
            pose = None
            if "transform" in config.inputs:
                pose = await self._pose_in(frame, photo)
                inputs["transform"] = (pose or Pose(np.eye(2, 3, dtype=np.float32))).transform
            answer = await self._infer(config, inputs, tuple(config.outputs))
            if pose is not None:
                styles = FaceStyles(w_coarse=answer["w_coarse"], transform=pose.transform, yaw=pose.yaw)
        else:
            answer = await self._infer(config, {"image": pixels}, ("f",))
            answer["w_m_plus"] = await self._mean_styles(cut)
            fine = await self._config("fine", cut)
            code = {name: answer[name] for name in ("f", "w_m_plus")}
            answer["reconstruction"] = (await self._infer(fine, code, ("image",)))["image"]
        inversion = Inversion(
            f=answer["f"],
            w_m_plus=answer["w_m_plus"],
            f_o=answer["f"],
            generator=generator_of(config),
            domain=self.domain,
            cut=number_of(config, "cut"),
            frame=frame,
            photo_size=photo.size,
            photo_sha256=photo.sha256,
            photo_name=photo.name,
            method=start,
            versions={"client": version(), "server": server.version},
            face=styles,
            faithful=Faithful.answered(answer),
        )
        return InversionResult(inversion, answer["reconstruction"])

    async def faces(self, photo: Photo) -> list[Face]:
        """Photo to its faces, the largest first; asked for again soon, they are remembered.

        Raises:
            ModelMissing: the domain shows no faces, or the server has no finder.
        """
        if (known := self._faces.get((photo.sha256, photo.size))) is not None:
            return list(known)
        said = await self._config("fine")
        name = said.parameters.get(FACE_FINDER, "")
        if not name:
            raise ModelMissing(f"the server at {self._transport.url} finds no faces for the domain {self.domain}")
        config = await self._named(shown(name))
        image = await asyncio.to_thread(shrunk, photo.image, number_of(config, "largest_image"))
        answer = await self._infer(config, {"image": image}, ("boxes", "landmarks", "scores"))
        scale = (photo.size[0] / image.shape[1], photo.size[1] / image.shape[0])
        found = [
            await self._levelled(face, photo, config)
            for face in faces_of(answer["boxes"], answer["landmarks"], answer["scores"], scale)
        ]
        if len(self._faces) >= _REMEMBERED:
            self._faces.clear()
        self._faces[photo.sha256, photo.size] = found
        return list(found)

    async def _levelled(self, face: Face, photo: Photo, config: ModelConfig) -> Face:
        """Look at a tilted face again, turned upright."""
        square = None
        for _ in range(LOOKS):
            if (square := look_at(face, square, photo.size)) is None:
                break
            image = await asyncio.to_thread(photo.pixels, square, LOOK_SIDE)
            answer = await self._infer(config, {"image": image}, ("boxes", "landmarks", "scores"))
            found = faces_of(answer["boxes"], answer["landmarks"], answer["scores"], (1, 1))
            if (again := seen_again(face, square, found)) is None:
                break
            face = again
        return face

    async def _pose_in(self, frame: Frame, photo: Photo) -> Pose | None:
        """Return how the face of a frame lies in it, where that is known or the server finds one.

        An aligned frame lies as its face does; it is not asked for, but remembered, how far that is turned.
        """
        if frame.kind == "aligned":
            found = pose_in(self._faces.get((photo.sha256, photo.size), ()), frame)
            return Pose(np.eye(2, 3, dtype=np.float32), 0.0 if found is None else found.yaw)
        try:
            faces = await self.faces(photo)
        except ModelMissing:
            return None
        return pose_in(faces, frame)

    async def render(self, inversion: Inversion) -> Image8:
        """Inversion to image: uint8 RGB [1024, 1024, 3]."""
        code, model = {"f": inversion.f, "w_m_plus": inversion.w_m_plus}, "fine"
        if inversion.faithful is not None:
            code, model = code | inversion.faithful.named(), "picture"
        config = await self._config(model, inversion.cut)
        self._require(inversion, config)
        answer = await self._infer(config, code, ("image",))
        image: Image8 = answer["image"]
        return image

    async def image_side(self, inversion: Inversion) -> int:
        """Return the side in pixels of the images that the inversion's generator makes."""
        config = await self._config("fine", inversion.cut)
        self._require(inversion, config)
        return side_of(config, "image", output=True)

    async def edit(self, inversion: Inversion, direction: Direction, strengths: Sequence[float]) -> Image8:
        """Inversion to one image per strength: uint8 RGB [n, 1024, 1024, 3]."""
        wanted = checked_strengths(strengths)
        config = await self._config("edit", inversion.cut)
        step = await self.step(inversion, direction)
        tensors = {**started(inversion, config), "direction": step}
        images = []
        for start in range(0, len(wanted), MAX_STRENGTHS):
            chunk = wanted[start : start + MAX_STRENGTHS]
            answer = await self._infer(config, {**tensors, "strengths": chunk}, ("images",))
            if len(answer["images"]) != len(chunk):
                raise AnswerRefused(f"the server answered {len(chunk)} strengths with {len(answer['images'])} images")
            images.append(answer["images"])
        edited: Image8 = np.concatenate(images)
        return edited

    async def step(self, inversion: Inversion, direction: Direction) -> NDArray[np.float32]:
        """Return what strength 1 of a direction adds to the styles that the server moves: float32 [n, 512]."""
        config = await self._config("edit", inversion.cut)
        self._require(inversion, config)
        direction.require_generator(inversion.generator)
        before, styles = number_of(config, "coarse_styles"), len(inversion.w_m_plus)
        if "w_coarse" not in config.inputs:
            return direction.step(before=before, styles=styles)
        if inversion.face is not None:
            return direction.step(before=0, styles=before + styles)
        # Without coarse styles f stays: a step of theirs would have nothing to start from.
        step = direction.step(before=before, styles=styles)
        return np.concatenate([np.zeros((before, step.shape[1]), np.float32), step])

    async def generate(self, seed: int, psi: float) -> Image8:
        """Seed to image: z to w to f to image, uint8 RGB [1024, 1024, 3]."""
        checked_sample(seed, psi)
        mapping = await self._config("mapping")
        coarse = await self._config("coarse")
        fine = await self._config("fine")
        if len({generator_of(config) for config in (mapping, coarse, fine)}) > 1:
            raise GeneratorMismatch(
                f"the models of {self.domain} on the server at {self._transport.url} belong to different generators"
            )
        z = np.random.default_rng(seed).standard_normal(spec_of(mapping, "z").dims).astype(np.float32)
        w = (await self._infer(mapping, {"z": z, "psi": np.array([psi], dtype=np.float32)}, ("w",)))["w"]
        f = await self.coarse(np.repeat(w[None], spec_of(coarse, "w").dims[0], axis=0))
        w_m_plus = np.repeat(w[None], spec_of(fine, "w_m_plus").dims[0], axis=0)
        answer = await self._infer(fine, {"f": f, "w_m_plus": w_m_plus}, ("image",))
        image: Image8 = answer["image"]
        return image

    async def coarse(self, styles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Coarse styles to ``f``: float32 [n, 512] -> [channels, cut, cut]."""
        answer = await self._infer(await self._config("coarse"), {"w": styles}, ("f",))
        f: NDArray[np.float32] = answer["f"]
        return f

    async def status(self) -> Status:
        """Return what the server says about itself and the domain's models."""
        server = await self._info()
        ready = await self._persist(self._transport.ready)
        models = []
        said: ModelConfig | None = None
        names = [(f"{self.domain}_{model}", role.each_domain) for model, role in ROLES.items() if not role.shared]
        names += [(f"{prefix(self.domain, cut)}_{model}", False) for cut in MORE_CUTS for model in MORE]
        names += [(model, False) for model in SHARED]
        for name, needed in names:
            try:
                versions = await self._persist(self._transport.versions, name)
                model_ready = await self._persist(self._transport.ready, name)
                if name not in SHARED:
                    said = said or await self._persist(self._transport.config, name)
            except ModelMissing:
                if needed:
                    models.append(ModelStatus(name, served=False, ready=False, versions=()))
            else:
                models.append(ModelStatus(name, served=True, ready=model_ready, versions=versions, needed=needed))
        generator = cut = None
        if said is not None:
            generator, cut = generator_of(said), number_of(said, "cut")
        return Status(
            self._transport.url, server, live=True, ready=ready, models=tuple(models), generator=generator, cut=cut
        )

    async def _mean_styles(self, cut: int) -> NDArray[np.float32]:
        """Return the mean of W as every style behind a cut: float32 [n, 512]."""
        mapping, fine = await self._config("mapping"), await self._config("fine", cut)
        z = np.ones(spec_of(mapping, "z").dims, np.float32)
        drawn = await self._infer(mapping, {"z": z, "psi": np.zeros(1, np.float32)}, ("w",))
        styles: NDArray[np.float32] = np.repeat(drawn["w"][None], spec_of(fine, "w_m_plus").dims[0], axis=0)
        return styles

    async def _reach(self) -> None:
        if self._reached:
            return
        url, seconds = self._transport.url, self.timeout.connect
        try:
            live = await self._persist(self._transport.live, seconds=seconds)
        except ServerTimeout as problem:
            raise ServerUnavailable(f"no Triton server answered at {url} within {seconds:g} seconds") from problem
        if not live:
            raise ServerUnavailable(f"the server at {url} is not live: it is starting or stopping")
        self._reached = True

    async def _info(self) -> ServerInfo:
        await self._reach()
        if self._server is None:
            self._server = await self._persist(self._transport.server)
        return self._server

    async def _config(self, model: str, cut: int = DEFAULT_CUT) -> ModelConfig:
        return await self._named(f"{prefix(self.domain, cut)}_{model}")

    async def _named(self, name: str) -> ModelConfig:
        await self._reach()
        if name not in self._configs:
            self._configs[name] = await self._persist(self._transport.config, name)
        return self._configs[name]

    async def _infer(
        self, config: ModelConfig, inputs: Mapping[str, Array], outputs: tuple[str, ...]
    ) -> dict[str, Any]:
        for name, value in inputs.items():
            if wrong := fault(value, spec_of(config, name)):
                raise ParameterError(f"the request for {config.name} would send '{name}' {wrong}")
        specs = {name: spec_of(config, name, output=True) for name in outputs}
        batched = {name: value[None] for name, value in inputs.items()} if config.max_batch else inputs
        answer = await self._persist(self._transport.infer, config.name, batched, outputs)
        found: dict[str, Any] = {}
        for name, spec in specs.items():
            value = answer[name]
            if config.max_batch:
                if value.shape[:1] != (1,):
                    raise AnswerRefused(f"the answer from {config.name} has '{name}' for another batch")
                value = value[0]
            if wrong := fault(value, spec):
                raise AnswerRefused(f"the answer from {config.name} has '{name}' {wrong}")
            # The answer's bytes are read-only and shared by all of its tensors.
            found[name] = np.array(value)
        return found

    async def _persist(self, ask: Callable[..., Awaitable[T]], *arguments: Any, seconds: float | None = None) -> T:
        """Ask until there is an answer: again only where the server was unavailable, and within one deadline.

        Raises:
            ServerError: the last attempt's, when all of them failed; any other than ``ServerUnavailable`` at once.
        """
        limit = self.timeout.request if seconds is None else seconds
        left = remaining(limit)
        async for attempt in AsyncRetrying(**policy(limit, attempts=ATTEMPTS)):
            with attempt:
                return await ask(*arguments, timeout=left())
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _require(self, inversion: Inversion, config: ModelConfig) -> None:
        inversion.require_generator(generator_of(config), domain=self.domain, cut=number_of(config, "cut"))
