"""The optimiser's step, which leaves the weights alone where the loss or the gradient is not finite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from gss_train.config import TrainingOptions


class UpdateReport(NamedTuple):
    """What became of a step; scalars on the device, which no one has waited for.

    Attributes:
        gradient_norm: before clipping.
        skipped: whether the weights were left alone, 0 or 1.
        bad: likewise, but not if float16's loss scale was merely too large, 0 or 1.
    """

    gradient_norm: Tensor
    skipped: Tensor
    bad: Tensor


@dataclass(frozen=True)
class AdamSettings:
    """Of the optimiser.

    Attributes:
        learning_rate: at the start.
        weight_decay: L2, added to the gradient.
        kernels_only: whether weights of fewer than two axes, biases and the like, are spared the decay.
        amsgrad: whether to divide by the largest second moment so far.
    """

    learning_rate: float
    weight_decay: float = 0.0
    kernels_only: bool = False
    amsgrad: bool = True

    @classmethod
    def of(cls, options: TrainingOptions) -> Self:
        """Those of a run."""
        kernels_only = options.decayed_weights == "kernels"
        return cls(options.learning_rate, options.weight_decay, kernels_only, options.amsgrad)

    def groups(self, parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
        """Parameters by their decay, as `torch.optim` takes them."""
        spared = [parameter for parameter in parameters if self.kernels_only and parameter.dim() < 2]
        decayed = [parameter for parameter in parameters if not self.kernels_only or parameter.dim() >= 2]
        groups = [{"params": decayed, "weight_decay": self.weight_decay}]
        return [*groups, {"params": spared, "weight_decay": 0.0}] if spared else groups


class GuardedUpdate:
    """Adam whose step is decided upon on the device, so that the host does not wait for it.

    The fused optimiser takes a flag, made for float16's loss scaling, with which it changes nothing, its own state and
    count of steps included.

    Args:
        parameters: to train.
        settings: of the optimiser.
        device: of the parameters.
        clip_gradient: largest norm of the whole gradient, which is scaled down to it; None: as it is.
        scale_loss: scale the loss, for gradients that are computed in float16, by a factor that adapts.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        settings: AdamSettings,
        device: torch.device,
        *,
        clip_gradient: float | None = None,
        scale_loss: bool = False,
    ) -> None:
        self.parameters = list(parameters)
        self.optimiser = torch.optim.Adam(
            settings.groups(self.parameters), lr=settings.learning_rate, amsgrad=settings.amsgrad, fused=True
        )
        self.clip_gradient = clip_gradient
        self.scaler = torch.amp.GradScaler(device.type, enabled=scale_loss)

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self.optimiser.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = value

    def forget_gradients(self) -> None:
        """Start a step."""
        self.optimiser.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a part of the step's loss."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, finite_loss: Tensor) -> UpdateReport:
        """Change the weights, unless loss or gradient is not finite.

        Args:
            finite_loss: 0-dim bool on the device, the same in all processes that train together.
        """
        scaling = self.scaler.is_enabled()
        if scaling:
            self.scaler.unscale_(self.optimiser)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = get_total_norm(gradients)
        finite_gradient = norm.isfinite()
        skipped = ~(finite_gradient & finite_loss)
        if self.clip_gradient is not None:
            clip_grads_with_norm_(self.parameters, self.clip_gradient, norm)
        # Where GradScaler's own step leaves its finding for a fused optimiser.
        self.optimiser.found_inf = skipped.float()  # type: ignore[attr-defined]
        self.optimiser.step()
        bad = skipped
        if scaling:
            bad = ~finite_loss | (~finite_gradient & (self._scale() <= 1))
            self.scaler.update()
        return UpdateReport(norm, skipped.float(), bad.float())

    def _scale(self) -> Tensor:
        scale = self.scaler._scale  # `get_scale` would wait for the device.
        assert scale is not None
        return scale

    def state_dict(self) -> dict[str, Any]:
        """Of optimiser and loss scale, for a checkpoint."""
        return {"optimiser": self.optimiser.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        for parameter, moments in self.optimiser.state.items():
            for name, value in moments.items():
                # The fused optimiser goes through the memory of both: they have to be laid out alike.
                if value.shape == parameter.shape:
                    moments[name] = torch.empty_like(parameter).copy_(value)
