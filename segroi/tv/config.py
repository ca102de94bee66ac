"""Everything that a training run of the torchvision host is told."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segroi.utils.suggest import UsageError, existing_file, unknown

SCHEDULES = ("cosine", "steps", "exponential", "constant")
OPTIMIZERS = ("sgd", "adamw", "tf_rmsprop")


@dataclass
class TrainConfig:
    """A training run; ``config.yaml`` beside the weights holds exactly this.

    ``lr`` is the peak learning rate; 0 means the optimizer's default for the batch size (SGD
    0.02 for 16 images and in proportion, AdamW 2e-4, TensorFlow's RMSProp 4e-5). ``steps`` are the
    fractions of the run after which the schedule "steps" divides it by ten; "exponential"
    multiplies it by ``decay_rate`` every ``decay_every`` iterations. An iteration is one step of
    the optimizer: it averages the gradients of ``accumulate`` batches of ``batch_size`` images.
    """

    model: str = ""
    model_args: dict[str, Any] = field(default_factory=dict)
    backbone_weights: str = ""
    data: str = ""
    images: str = ""
    val_data: str = ""
    val_images: str = ""
    output: str = ""
    iterations: int = 1000
    batch_size: int = 2
    accumulate: int = 1
    optimizer: str = "sgd"
    lr: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    rmsprop_decay: float = 0.9
    rmsprop_eps: float = 1.0
    schedule: str = "cosine"
    steps: list[float] = field(default_factory=lambda: [0.67, 0.89])
    decay_rate: float = 0.75
    decay_every: int = 10000
    warmup: int = 100
    clip_norm: float = 35.0
    flip: float = 0.5
    seed: int = 0
    workers: int = 2
    checkpoint_every: int = 250
    device: str = ""

    def check(self) -> None:
        """Raise a UsageError about the first value that cannot be meant."""
        for name in ("model", "data", "images", "output"):
            if not getattr(self, name):
                raise UsageError(f"--{name} is missing")
        for name, value, known in (
            ("schedule", self.schedule, SCHEDULES),
            ("optimizer", self.optimizer, OPTIMIZERS),
        ):
            if value not in known:
                raise UsageError(unknown(name, value, known))
        for name in ("iterations", "batch_size", "accumulate", "decay_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.lr < 0 or not 0 <= self.flip <= 1:
            raise UsageError(f"lr must be >= 0 and flip in 0..1, got {self.lr} and {self.flip}")

    def peak_lr(self) -> float:
        """The learning rate after warm-up."""
        if self.lr:
            return self.lr
        images = self.batch_size * self.accumulate
        return {"sgd": 0.02 * images / 16, "adamw": 2e-4, "tf_rmsprop": 4e-5}[self.optimizer]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def save(self, path: Path) -> None:
        """Write as yaml."""
        path.write_text(OmegaConf.to_yaml(self.to_dict()))


def load_config(path: str | Path | None = None, **changes: object) -> TrainConfig:
    """A config from a yaml file (plain data: no code in it is run) and changes to it.

    Args:
        path: yaml file with fields of ``TrainConfig``; None: the defaults.
        changes: fields to set; ``model_args`` are merged into the file's.
    """
    config = OmegaConf.structured(TrainConfig)
    try:
        if path is not None:
            values = OmegaConf.load(existing_file(path, "config file"))
            _check_names(values, str(path))
            config = OmegaConf.merge(config, values)
        _check_names(changes, "the command line")
        merged = OmegaConf.to_object(OmegaConf.merge(config, changes))
    except (OmegaConfBaseException, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"config {path or ''}: {str(error).splitlines()[0]}") from error
    except Exception as error:  # yaml's own errors share no base that omegaconf exports
        raise UsageError(f"config {path} is no yaml: {error}") from error
    assert isinstance(merged, TrainConfig)
    return merged


def _check_names(values: Any, where: str) -> None:
    known = [f.name for f in fields(TrainConfig)]
    for name in values:
        if name not in known:
            raise UsageError(f"{where}: {unknown('field', str(name), known)}")
