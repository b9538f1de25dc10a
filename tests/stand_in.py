"""A GPU that is none: tensors that say they are on `cuda:0`, lie in the host's memory, and refuse what a GPU would punish.

While it is policed, an operation that makes the host wait for the device raises `Punished` where it stands, unless it is a read that
`drafting.device.on_host` makes, which is counted. So does an array of the host among the device's, and a copy to the device that waits.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("cuda", 0)
HOST = torch.device("cpu")
# Operations whose result's size or value the host must know before it can go on.
WAITING = {
    *("_local_scalar_dense", "item", "is_nonzero", "nonzero", "nonzero_numpy", "argwhere", "masked_select", "bincount", "equal"),
    *("_unique2", "unique_dim", "unique_consecutive"),
}
INDEXED = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}
FACTORIES = {torch.zeros, torch.ones, torch.empty, torch.full, torch.arange, torch.rand, torch.randn, torch.scalar_tensor, torch.eye}


class Punished(AssertionError):
    """A GPU would have waited, or refused."""


class DeviceTensor(Tensor):
    """A tensor on the stand-in; `held` is its memory."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "DeviceTensor":
        # What inference may not be made a view of, or written to, is the memory's to say.
        with torch.inference_mode(False):
            made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
                cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=DEVICE
            )
        made.held = held
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} met a tensor of the stand-in outside it.")


class StandIn(TorchDispatchMode):
    """The device; enter `stand_in()`.

    Attributes:
        reads: planned reads since it was policed.
        recorded: called with each operation on the device's memory, its arguments and its result; None to call nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_policed = False
        self.reads = 0
        self.recorded: Callable[[Any, Any, Any, Any], None] | None = None

    @contextmanager
    def policed(self) -> Iterator[None]:
        """Punish, and count reads from 0."""
        self.is_policed, self.reads = True, 0
        try:
            yield
        finally:
            self.is_policed = False

    def punish(self, what: str) -> None:
        if self.is_policed or self.recorded is not None:
            raise Punished(what)

    def read(self, tensor: DeviceTensor) -> Tensor:
        """Copy to the host, as nothing but `on_host` may."""
        self._refuse_while_recording("read")
        if self.is_policed:
            if not _is_called_by("on_host"):
                raise Punished("This reads the device, and no step plans it.")
            self.reads += 1
        return tensor.held.clone()

    def send(self, tensor: Tensor, non_blocking: bool) -> DeviceTensor:
        self._refuse_while_recording("sent")
        if not non_blocking:
            self.punish("This copy to the device waits for all that the device has been given.")
        return DeviceTensor(tensor.clone())

    def _refuse_while_recording(self, what: str) -> None:
        if self.recorded is not None:
            raise Punished(f"While a graph is recorded nothing can be {what}.")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name, wanted = func.overloadpacket.__name__, kwargs.get("device")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        ours = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
        if name == "_to_copy" and wanted is not None and wanted.type != args[0].device.type:
            moved = self.read(args[0]) if ours else self.send(args[0], kwargs.get("non_blocking", False))
            return moved if kwargs.get("dtype") is None else moved.to(kwargs["dtype"])
        if name == "copy_" and 0 < len(ours) < len(tensors):
            source = args[1] if isinstance(args[0], DeviceTensor) else None
            given = self.read(args[1]) if source is None else self.send(args[1], len(args) > 2 and args[2])
            return args[0].copy_(given)
        if not ours and (wanted is None or wanted.type == "cpu"):
            return func(*args, **kwargs)
        self._check(name, args[1] if name in INDEXED else (), tensors)
        if wanted is not None:
            kwargs["device"] = HOST
        return self.run(func, args, kwargs)

    def index(self, func: Any, args: Any) -> Any:
        """`Tensor.__getitem__` or `__setitem__`, whose binding needs CUDA itself."""
        given = args[1] if isinstance(args[1], tuple) else (args[1],)
        if any(isinstance(index, Tensor) and not index.ndim for index in given):
            self.punish("An index that is a single number on the device is read.")
        self._check("index", [index for index in given if isinstance(index, Tensor)], [leaf for leaf in given if isinstance(leaf, Tensor)])
        return self.run(func, args, {})

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation on the memory; a tensor that is its argument and its result stays the same one."""
        ours = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, DeviceTensor)]
        known = {id(tensor.held): tensor for tensor in ours}
        held_args, held_kwargs = tree_map(_held, (args, kwargs))
        result = func(*held_args, **held_kwargs)
        if self.recorded is not None:
            self.recorded(func, held_args, held_kwargs, result)
        return tree_map(lambda leaf: known[id(leaf)] if id(leaf) in known else _on_device(leaf), result)

    def _check(self, name: str, indices: Any, tensors: list[Tensor]) -> None:
        """Punish an operation on the device that waits, or that also takes a tensor of the host (but for a number's)."""
        # Repeating waits for the numbers of times, unless that is one that the host knows.
        if name in WAITING or (name == "repeat_interleave" and len(tensors) > 1):
            self.punish(f"{name} waits for the device.")
        if any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices):
            self.punish("An index of truth values waits for the device, which alone knows how many are true.")
        if any(not isinstance(tensor, DeviceTensor) and (tensor.ndim or name in INDEXED) for tensor in tensors):
            raise Punished(f"{name} is given a tensor of the host beside the device's.")


class _Calls(TorchFunctionMode):
    """What Python's bindings would begin a CUDA of their own for."""

    def __init__(self, device: StandIn) -> None:
        super().__init__()
        self._device = device
        self._bindings: dict[Any, Callable[..., Any]] = {
            Tensor.__invert__: torch.ops.aten.bitwise_not.default,
            Tensor.copy_: torch.ops.aten.copy_.default,
            Tensor.contiguous: torch.ops.aten.contiguous.default,
            Tensor.item: torch.ops.aten._local_scalar_dense.default,
            Tensor.nonzero: torch.ops.aten.nonzero.default,
            Tensor.cpu: device.read,
            torch.as_tensor: lambda tensor: tensor,
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (Tensor.numpy, Tensor.tolist, Tensor.__array__) and isinstance(args[0], DeviceTensor):
            return func(self._device.read(args[0]), *args[1:], **kwargs)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], DeviceTensor):
            return self._device.index(func, args)
        if func in self._bindings and any(isinstance(given, DeviceTensor) for given in args):
            return self._bindings[func](*args, **kwargs)
        if func is Tensor.to and any(_is_ours(given) for given in (*args[1:], kwargs.get("device"))):
            return self._to(*args, **kwargs)
        if _is_ours(kwargs.get("device")):
            if func is torch.tensor:
                return self._device.send(func(*args, **kwargs | {"device": HOST}), non_blocking=False)
            if func in FACTORIES:
                return self._device.run(func, args, kwargs | {"device": HOST})
        return func(*args, **kwargs)

    def _to(self, tensor: Tensor, *given: Any, non_blocking: bool = False, **kwargs: Any) -> Tensor:
        dtype = next((one for one in (*given, kwargs.get("dtype")) if isinstance(one, torch.dtype)), tensor.dtype)
        # `Module.to` gives it by its place.
        non_blocking = non_blocking or (len(given) > 2 and given[2])
        sent = tensor if isinstance(tensor, DeviceTensor) else self._device.send(tensor.detach(), non_blocking)
        return sent.to(dtype)


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """The device is there while the context lasts; nothing of it may be used after."""
    device, overwrites = StandIn(), torch.__future__.get_overwrite_module_params_on_conversion()
    # `Module.to` would otherwise swap what lies behind a parameter, and leave it an ordinary tensor.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with device, _Calls(device):
            yield device
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)


def _is_ours(device: Any) -> bool:
    return isinstance(device, torch.device | str) and torch.device(device).type == DEVICE.type if device is not None else False


def _on_device(leaf: Any) -> Any:
    return DeviceTensor(leaf) if isinstance(leaf, Tensor) else leaf


def _held(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, DeviceTensor) else leaf


def _is_called_by(function: str) -> bool:
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_name == function and frame.f_code.co_filename.endswith("drafting/device.py"):
            return True
    return False
