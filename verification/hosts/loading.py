"""Loading a model on a host by the host's name.

Invariant: a host, and the library that it stands for, is imported only when it is asked for.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from drafting.beam.model import TreeModel
from drafting.model_files import ModelFiles
from verification.hosts.adapter import load_model_config
from verification.hosts.checkpoint import HostError, has_encoder


def load_host(
    name: str,
    model_dir: Path,
    *,
    base: Path | None = None,
    dtype: str,
    kv_memory_gib: float = 0.5,
    slots: int | None = None,
    longest: int | None = None,
    tensor_parallel: int = 1,
    quantization: str | None = None,
    exact: bool = False,
    check: Callable[[TreeModel], None] | None = None,
) -> TreeModel:
    """Load a model on the host called `name`; a host is imported only when it is asked for. `slots` is for the transformers host alone.

    Args:
        exact: `make_exact` will be asked for.
        check: called with the loaded model; if it raises `HostError`, the next code that vLLM has for the family is tried.

    Raises:
        HostError: no such host, or the model cannot be served on it.
    """
    if name == "transformers":
        from verification.hosts.encoder_decoder import EncoderDecoderHost
        from verification.hosts.transformers import TransformersHost

        if tensor_parallel != 1:
            raise HostError("The transformers host runs on one device: tensor parallelism needs the vLLM host.")
        if quantization is not None:
            raise HostError("The transformers host loads weights as they are: quantizing them needs the vLLM host.")
        host = EncoderDecoderHost if has_encoder(load_model_config(ModelFiles.find(model_dir, base))) else TransformersHost
        model = host(model_dir, base=base, dtype=dtype, kv_memory_gib=kv_memory_gib, slots=slots)
        with ExitStack() as loaded:
            loaded.callback(model.close)
            if check is not None:
                check(model)
            if not exact:
                model.pack()
            loaded.pop_all()
        return model
    if name == "vllm":
        if exact:
            raise HostError("The vLLM host can't make lists exact: serve with --engine transformers, or without --exact.")
        try:
            from verification.hosts.vllm import VllmHost
        except ImportError as error:
            raise HostError(
                f"vLLM cannot be imported ({error}): install the extra 'cpu' or 'gpu', or use --engine transformers."
            ) from error
        return VllmHost(
            model_dir,
            base=base,
            dtype=dtype,
            kv_memory_gib=kv_memory_gib,
            longest=longest,
            tensor_parallel=tensor_parallel,
            quantization=quantization,
            check=check,
        )
    raise HostError(f"There is no host {name!r}: choose 'vllm' or 'transformers'.")
