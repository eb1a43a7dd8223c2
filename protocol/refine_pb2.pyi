from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Tensor(_message.Message):
    __slots__ = ("shape", "data")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class NamedTensor(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: Tensor
    def __init__(self, name: _Optional[str] = ..., value: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class Pixels(_message.Message):
    __slots__ = ("width", "height", "rgb")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    RGB_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    rgb: bytes
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., rgb: _Optional[bytes] = ...) -> None: ...

class Weights(_message.Message):
    __slots__ = ("mse", "perceptual", "f", "p_norm", "domain", "close_up", "person", "eyes")
    MSE_FIELD_NUMBER: _ClassVar[int]
    PERCEPTUAL_FIELD_NUMBER: _ClassVar[int]
    F_FIELD_NUMBER: _ClassVar[int]
    P_NORM_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    CLOSE_UP_FIELD_NUMBER: _ClassVar[int]
    PERSON_FIELD_NUMBER: _ClassVar[int]
    EYES_FIELD_NUMBER: _ClassVar[int]
    mse: float
    perceptual: float
    f: float
    p_norm: float
    domain: float
    close_up: float
    person: float
    eyes: float
    def __init__(self, mse: _Optional[float] = ..., perceptual: _Optional[float] = ..., f: _Optional[float] = ..., p_norm: _Optional[float] = ..., domain: _Optional[float] = ..., close_up: _Optional[float] = ..., person: _Optional[float] = ..., eyes: _Optional[float] = ...) -> None: ...

class Options(_message.Message):
    __slots__ = ("preset", "steps", "seconds", "target", "weights", "checkpoint_every", "progress_every", "preview_every", "clip")
    PRESET_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_EVERY_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_EVERY_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_EVERY_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    preset: str
    steps: int
    seconds: float
    target: float
    weights: Weights
    checkpoint_every: int
    progress_every: int
    preview_every: int
    clip: float
    def __init__(self, preset: _Optional[str] = ..., steps: _Optional[int] = ..., seconds: _Optional[float] = ..., target: _Optional[float] = ..., weights: _Optional[_Union[Weights, _Mapping]] = ..., checkpoint_every: _Optional[int] = ..., progress_every: _Optional[int] = ..., preview_every: _Optional[int] = ..., clip: _Optional[float] = ...) -> None: ...

class RefineRequest(_message.Message):
    __slots__ = ("generator", "domain", "pixels", "encoded", "f", "w_m_plus", "f_o", "options", "resume", "request_id")
    GENERATOR_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    F_FIELD_NUMBER: _ClassVar[int]
    W_M_PLUS_FIELD_NUMBER: _ClassVar[int]
    F_O_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    generator: str
    domain: str
    pixels: Pixels
    encoded: bytes
    f: Tensor
    w_m_plus: Tensor
    f_o: Tensor
    options: Options
    resume: Checkpoint
    request_id: str
    def __init__(self, generator: _Optional[str] = ..., domain: _Optional[str] = ..., pixels: _Optional[_Union[Pixels, _Mapping]] = ..., encoded: _Optional[bytes] = ..., f: _Optional[_Union[Tensor, _Mapping]] = ..., w_m_plus: _Optional[_Union[Tensor, _Mapping]] = ..., f_o: _Optional[_Union[Tensor, _Mapping]] = ..., options: _Optional[_Union[Options, _Mapping]] = ..., resume: _Optional[_Union[Checkpoint, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class Terms(_message.Message):
    __slots__ = ("total", "mse", "perceptual", "f", "p_norm", "domain", "close_up", "person", "eyes")
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    MSE_FIELD_NUMBER: _ClassVar[int]
    PERCEPTUAL_FIELD_NUMBER: _ClassVar[int]
    F_FIELD_NUMBER: _ClassVar[int]
    P_NORM_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    CLOSE_UP_FIELD_NUMBER: _ClassVar[int]
    PERSON_FIELD_NUMBER: _ClassVar[int]
    EYES_FIELD_NUMBER: _ClassVar[int]
    total: float
    mse: float
    perceptual: float
    f: float
    p_norm: float
    domain: float
    close_up: float
    person: float
    eyes: float
    def __init__(self, total: _Optional[float] = ..., mse: _Optional[float] = ..., perceptual: _Optional[float] = ..., f: _Optional[float] = ..., p_norm: _Optional[float] = ..., domain: _Optional[float] = ..., close_up: _Optional[float] = ..., person: _Optional[float] = ..., eyes: _Optional[float] = ...) -> None: ...

class Queued(_message.Message):
    __slots__ = ("position",)
    POSITION_FIELD_NUMBER: _ClassVar[int]
    position: int
    def __init__(self, position: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("step", "steps", "seconds", "terms")
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    step: int
    steps: int
    seconds: float
    terms: Terms
    def __init__(self, step: _Optional[int] = ..., steps: _Optional[int] = ..., seconds: _Optional[float] = ..., terms: _Optional[_Union[Terms, _Mapping]] = ...) -> None: ...

class Preview(_message.Message):
    __slots__ = ("step", "jpeg")
    STEP_FIELD_NUMBER: _ClassVar[int]
    JPEG_FIELD_NUMBER: _ClassVar[int]
    step: int
    jpeg: bytes
    def __init__(self, step: _Optional[int] = ..., jpeg: _Optional[bytes] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("step", "seconds", "f", "w_m_plus", "state", "terms")
    STEP_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    F_FIELD_NUMBER: _ClassVar[int]
    W_M_PLUS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    step: int
    seconds: float
    f: Tensor
    w_m_plus: Tensor
    state: _containers.RepeatedCompositeFieldContainer[NamedTensor]
    terms: Terms
    def __init__(self, step: _Optional[int] = ..., seconds: _Optional[float] = ..., f: _Optional[_Union[Tensor, _Mapping]] = ..., w_m_plus: _Optional[_Union[Tensor, _Mapping]] = ..., state: _Optional[_Iterable[_Union[NamedTensor, _Mapping]]] = ..., terms: _Optional[_Union[Terms, _Mapping]] = ...) -> None: ...

class Metrics(_message.Message):
    __slots__ = ("stlpips_alex", "psnr_256", "psnr", "identity", "landmarks", "face", "eyes")
    STLPIPS_ALEX_FIELD_NUMBER: _ClassVar[int]
    PSNR_256_FIELD_NUMBER: _ClassVar[int]
    PSNR_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    LANDMARKS_FIELD_NUMBER: _ClassVar[int]
    FACE_FIELD_NUMBER: _ClassVar[int]
    EYES_FIELD_NUMBER: _ClassVar[int]
    stlpips_alex: float
    psnr_256: float
    psnr: float
    identity: float
    landmarks: float
    face: bool
    eyes: float
    def __init__(self, stlpips_alex: _Optional[float] = ..., psnr_256: _Optional[float] = ..., psnr: _Optional[float] = ..., identity: _Optional[float] = ..., landmarks: _Optional[float] = ..., face: bool = ..., eyes: _Optional[float] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ("step", "seconds", "reason", "f", "w_m_plus", "terms", "metrics", "start_kept")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[Done.Reason]
        STEPS: _ClassVar[Done.Reason]
        SECONDS: _ClassVar[Done.Reason]
        TARGET: _ClassVar[Done.Reason]
    REASON_UNSPECIFIED: Done.Reason
    STEPS: Done.Reason
    SECONDS: Done.Reason
    TARGET: Done.Reason
    STEP_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    F_FIELD_NUMBER: _ClassVar[int]
    W_M_PLUS_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    START_KEPT_FIELD_NUMBER: _ClassVar[int]
    step: int
    seconds: float
    reason: Done.Reason
    f: Tensor
    w_m_plus: Tensor
    terms: Terms
    metrics: Metrics
    start_kept: bool
    def __init__(self, step: _Optional[int] = ..., seconds: _Optional[float] = ..., reason: _Optional[_Union[Done.Reason, str]] = ..., f: _Optional[_Union[Tensor, _Mapping]] = ..., w_m_plus: _Optional[_Union[Tensor, _Mapping]] = ..., terms: _Optional[_Union[Terms, _Mapping]] = ..., metrics: _Optional[_Union[Metrics, _Mapping]] = ..., start_kept: bool = ...) -> None: ...

class RefineEvent(_message.Message):
    __slots__ = ("queued", "progress", "preview", "checkpoint", "done")
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    queued: Queued
    progress: Progress
    preview: Preview
    checkpoint: Checkpoint
    done: Done
    def __init__(self, queued: _Optional[_Union[Queued, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., preview: _Optional[_Union[Preview, _Mapping]] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., done: _Optional[_Union[Done, _Mapping]] = ...) -> None: ...
