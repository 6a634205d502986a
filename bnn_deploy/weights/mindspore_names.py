"""The names that MindSpore gives to what PyTorch calls otherwise, and what else it writes into a checkpoint.

    file (MindSpore)                      model (PyTorch)
    network.0.0.norm1.gamma               network.0.0.norm1.weight
    network.0.0.norm1.beta                network.0.0.norm1.bias
    network.0.0.norm1.moving_mean         network.0.0.norm1.running_mean
    network.0.0.norm1.moving_variance     network.0.0.norm1.running_var
    moments.network.0.0.norm1.gamma       (training state)

Everything else has the same name in both. A name is translated only where the model has a normalisation layer of that
path; what is neither in the model nor training state keeps its name, for the caller to refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from bnn_deploy.errors import ModelFileError

_PYTORCH = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
# ``mindspore.train.ModelCheckpoint`` saves the optimizer too, unless told not to, and ``load_param_into_net``, with which
# the released BiMLP loads its weights, passes over what the network does not have. Of that we pass over what MindSpore's own
# optimizers, loss scaling and callbacks write, and nothing else. One tensor for each parameter, named PREFIX.PARAMETER:
_STATE_PREFIXES = frozenset(
    (
        *("moments",),  # Momentum
        *("moment1", "moment2", "vhat"),  # Adam
        *("adam_m", "adam_v"),  # AdamWeightDecay
        *("accum", "stat"),  # SGD
        *("moment", "mean_square", "mean_grad"),  # RMSProp
    )
)
# And one for the whole training:
_STATE_NAMES = frozenset(
    (
        *("learning_rate", "global_step", "momentum", "beta1_power", "beta2_power"),
        *("loss_scale", "scale_sense", "current_iterator_step", "last_overflow_iterator_step"),
        *("epoch_num", "step_num"),
    )
)


@dataclass(frozen=True)
class Translation:
    """The tensors of a checkpoint under PyTorch's names.

    Attributes:
        tensors: by name, without training state.
        training_state: names of MindSpore's training state.
        from_mindspore: whether a name had to be translated.
    """

    tensors: dict[str, Tensor]
    training_state: tuple[str, ...]
    from_mindspore: bool


def to_pytorch_names(found: Mapping[str, Tensor], model: nn.Module) -> Translation:
    """Translate the names of a MindSpore checkpoint for ``model``; PyTorch's own names stay as they are.

    Raises:
        ModelFileError: the checkpoint holds one tensor under both names.
    """
    own = set(model.state_dict())
    norms = {path for path, module in model.named_modules() if isinstance(module, nn.BatchNorm2d | nn.GroupNorm)}
    tensors: dict[str, Tensor] = {}
    state: list[str] = []
    for name, tensor in found.items():
        translated = _translate(name, own, norms)
        prefix, _, rest = name.partition(".")
        if translated in tensors:
            raise ModelFileError(
                f"The weights hold {translated} twice, under PyTorch's name and MindSpore's; keep one of them."
            )
        of_parameter = prefix in _STATE_PREFIXES and _translate(rest, own, norms) in own
        if translated not in own and (of_parameter or name in _STATE_NAMES):
            state.append(name)
        else:
            tensors[translated] = tensor
    return Translation(tensors, tuple(state), any(name not in found for name in tensors))


def _translate(name: str, own: set[str], norms: set[str]) -> str:
    path, _, last = name.rpartition(".")
    renamed = f"{path}.{_PYTORCH[last]}" if last in _PYTORCH and path in norms else name
    return renamed if renamed in own else name
