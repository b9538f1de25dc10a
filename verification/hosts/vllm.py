"""The vLLM host: vLLM loads and runs the model, with tree attention as its attention backend and tree forwards in its worker.

Only this file, `vllm_attention.py`, `vllm_head.py`, `vllm_int8.py` and `vllm_start.py` import vLLM. Invariant: vLLM's weights, kernels
and tensor parallelism are used unchanged, and its scheduler never runs. The key/value memory is allocated by vLLM and has the layout of
tree attention. Which class a model is of, and what its layers attend to, is what transformers makes of its configuration, not vLLM.
"""

import gc
import logging
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from drafting.beam.model import TreeBatch, TreeModel
from drafting.beam.rows import Rows
from drafting.model_files import ModelFiles
from drafting.pretrained import LOADING_ERRORS
from verification.hosts.adapter import load_model_config
from verification.hosts.attention import Alibi, LayerLayouts, Reach, View
from verification.hosts.checkpoint import (
    HostError,
    check_no_encoder,
    refusal,
    resolve_dtype,
    slot_bytes,
    slot_count,
)
from verification.hosts.layer_reaches import layer_reaches
from verification.hosts.merged_copy import merged_copy
from verification.hosts.quantization import check_quantization_of_vllm
from verification.hosts.vllm_attention import BACKEND, BLOCK_SIZE, FUSED_ON_CPU, INT8, LayerForward
from verification.hosts.vllm_errors import reason
from verification.hosts.vllm_families import check_family, implementations, overrides
from verification.hosts.vllm_head import HeadWorker, LivingSets, VllmHead
from verification.hosts.vllm_int8 import check_int8
from verification.hosts.vllm_start import starting
from verification.hosts.weights import check_names

logger = logging.getLogger(__name__)

# The environment of vLLM stands by now.
WORKER = f"{__name__}.TreeWorker"
# A share of a device's memory.
LEAST_FREE = 0.001
# What `quantization` is to vLLM, which by "fp8" means one scale of activations for a whole forward in layers of experts, so that a list
# would depend on the other requests of the batch; here it is one for each token.
QUANTIZATIONS = {"fp8": "fp8_per_channel", "int8": INT8}
# Families whose biases by position transformers works out in bfloat16.
COARSE_ALIBI = {"falcon"}

from vllm.distributed.parallel_state import cleanup_dist_env_and_memory
from vllm.engine.arg_utils import EngineArgs
from vllm.forward_context import set_forward_context
from vllm.model_executor.layers.attention import Attention, ChunkedLocalAttention
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.model_executor.models import registry
from vllm.model_executor.models.bloom import BloomMLP
from vllm.model_executor.models.transformers.base import Base as TransformersModel
from vllm.model_executor.models.utils import extract_layer_index
from vllm.platforms import current_platform
from vllm.v1.engine.llm_engine import LLMEngine
from vllm.v1.worker.workspace import current_workspace_manager, is_workspace_manager_initialized

if current_platform.is_cpu():
    # vLLM looks at the class of a model in a process of its own, which takes seconds, only to leave GPUs alone in this one.
    registry._run_in_subprocess = lambda inspect: inspect()

# Where vLLM runs transformers' modelling code, it prepares transformers' own classes for its compiler, which never runs here, and no plain
# model of such a family, for the self-check or a draft, could be made in this process any more.
TransformersModel._decorate_for_torch_compile = lambda self: None


class TreeWorker(HeadWorker):
    """Extension of vLLM's worker (`worker_extension_cls`); runs on every tensor-parallel rank."""

    tree_layers: dict[str, Attention]
    tree_layouts: LayerLayouts
    tree_workspaces: dict[int, Tensor]

    def tree_setup(self, reaches: Sequence[Reach | None], longest: int) -> tuple[int, bool]:
        """Prepare tree forwards of texts of up to `longest` tokens, of a model whose layers attend so far back.

        Returns:
            the number of slots that vLLM allocated, and whether rows can be projected onto some tokens.
        """
        # Experts stand in vLLM's context as well.
        context = self.vllm_config.compilation_config.static_forward_context
        found = {name: layer for name, layer in context.items() if isinstance(layer, AttentionLayerBase)}
        self.tree_layers = {name: layer for name, layer in found.items() if isinstance(layer, Attention)}
        indices = [extract_layer_index(name) for name in self.tree_layers]
        if len(self.tree_layers) != len(found) or set(indices) != set(range(len(reaches))):
            raise HostError("vLLM runs layers of this model that are no plain attention: they can't be served.")
        owners = [layer for layer in self.tree_layers.values() if layer.kv_sharing_target_layer_name is None]
        if len({layer.kv_cache.data_ptr() for layer in owners}) != len(owners):
            raise HostError("vLLM lets several layers of this model share their memory for keys and values: use --engine transformers.")
        slots = min(layer.kv_cache.numel() // (layer.num_kv_heads * (layer.head_size + layer.head_size_v)) for layer in owners)
        for module in self.model_runner.get_model().modules():
            if isinstance(module, BloomMLP):
                # BLOOM's own activation, which vLLM takes another for.
                module.gelu_impl = torch.nn.GELU(approximate="tanh")
        coarse = self.vllm_config.model_config.hf_config.model_type in COARSE_ALIBI
        views = [_view(layer, reaches[index], longest, coarse) for layer, index in zip(self.tree_layers.values(), indices, strict=True)]
        self.tree_layouts = LayerLayouts(views, slots, self.device)
        self.tree_workspaces = {}
        return int(slots), self.find_head()

    @torch.inference_mode()
    def tree_forward(self, batch: TreeBatch) -> Tensor | None:
        """Run one forward; return the states of its outputs, `[outputs, size]`, on the first rank and None on the others."""
        # Between processes, a batch arrives on the device of the first rank.
        batch = batch.to(self.device)
        layouts = self.tree_layouts.of(batch)
        is_exact = self.vllm_config.model_config.quantization == INT8
        forwards = {name: LayerForward(batch.written, seen, is_exact) for name, seen in zip(self.tree_layers, layouts, strict=True)}
        model = self.model_runner.get_model()
        with set_forward_context(forwards, self.vllm_config, num_tokens=len(batch.tokens)):
            hidden = model(input_ids=batch.tokens, positions=batch.positions)
        if self.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            self.keep_workspaces()
        return batch.at_outputs(hidden) if self.rank == 0 else None

    def keep_workspaces(self) -> None:
        """Keep what a recorded forward writes to at each replay: vLLM frees workspaces of experts that a larger forward outgrows."""
        if is_workspace_manager_initialized():
            present = [workspace for workspace in current_workspace_manager()._current_workspaces if workspace is not None]
            self.tree_workspaces |= {workspace.data_ptr(): workspace for workspace in present}


def _view(layer: Attention, reach: Reach | None, longest: int, coarse: bool) -> View:
    """How far back a layer attends, and its ALiBi biases; raise HostError if vLLM has given it other windows than `reach`."""
    window = layer.sliding_window
    # One that no text reaches beyond is none.
    own = None if window is None or window >= longest else Reach(window)
    if isinstance(layer, ChunkedLocalAttention):
        own = Reach(layer.attention_chunk_size, chunked=True)
    if own is not None and own != reach:
        raise HostError("vLLM gives layers of this model other windows than transformers: use --engine transformers.")
    alibi: Alibi | None = layer.impl.tree_alibi
    if alibi is not None and coarse:
        # vLLM's slopes are those of scaled scores.
        scale = layer.impl.scale
        alibi = Alibi(tuple(slope / scale for slope in alibi.slopes), scale, coarse=True)
    return View(reach, alibi)


class VllmHost:
    """A model loaded by vLLM, in this process unless it is tensor-parallel."""

    has_encoder = False

    def __init__(
        self,
        model_dir: Path,
        *,
        base: Path | None = None,
        dtype: str = "auto",
        kv_memory_gib: float = 0.5,
        longest: int | None = None,
        tensor_parallel: int = 1,
        quantization: str | None = None,
        check: Callable[[TreeModel], None] | None = None,
    ) -> None:
        """
        Args:
            base: base model of an adapter, of which a merged copy is loaded; by default the one that its configuration names.
            dtype: "auto" (dtype of the checkpoint), "float32", "bfloat16" or "float16".
            kv_memory_gib: memory for keys and values, which determines the number of slots.
            longest: maximum number of tokens of a sequence; by default the maximum of the model.
            tensor_parallel: number of devices that share the model.
            quantization: quantization of the weights while loading, such as "fp8"; by default that of the checkpoint.
            check: called with the loaded host; vLLM's code is not used if it raises `HostError`.

        Raises:
            HostError: this host cannot serve the model.
        """
        files = ModelFiles.find(model_dir, base)
        config = load_model_config(files)
        check_no_encoder(config, model_dir)
        check_family(config)
        precision = resolve_dtype(config, dtype)
        check_quantization_of_vllm(config, files.weights, precision, on_cpu=current_platform.is_cpu())
        reaches = layer_reaches(config)
        check_names(files.weights)
        if quantization == "int8":
            check_int8(precision, current_platform.is_cpu())
        elif quantization is not None and current_platform.is_cpu():
            # vLLM's CPU kernels scale by the whole forward, so a list would depend on the other requests of the batch.
            raise HostError("Quantizing weights to fp8 needs a GPU: use --quantization int8, or serve them as they are.")
        self.device = torch.device("cpu") if current_platform.is_cpu() else torch.device("cuda")
        self.vocabulary_size = int(config.vocab_size)
        self._sets = LivingSets()
        # vLLM gives keys and values whole blocks of slots, and each device its share.
        slot_count(slot_bytes(config, precision), kv_memory_gib * tensor_parallel, fewest=BLOCK_SIZE)
        if files.base is not None:
            model_dir = merged_copy(files, config, precision)
            check_names(model_dir)
        arguments: dict[str, Any] = {
            "model": str(model_dir),
            "skip_tokenizer_init": True,
            "dtype": precision,
            "max_model_len": min(longest or config.max_position_embeddings, config.max_position_embeddings),
            "block_size": BLOCK_SIZE,
            "kv_cache_memory_bytes": int(kv_memory_gib * 2**30),
            # vLLM does not start unless such a share of a GPU is free, although it is told what it gets.
            "gpu_memory_utilization": LEAST_FREE,
            "enforce_eager": True,
            "enable_prefix_caching": False,
            "worker_extension_cls": WORKER,
            "tensor_parallel_size": tensor_parallel,
            "quantization": quantization and QUANTIZATIONS.get(quantization, quantization),
            "distributed_executor_backend": "uni" if tensor_parallel == 1 else "mp",
            "attention_config": {"backend": BACKEND.name},
            "kernel_config": {
                "ir_op_priority": {"rms_norm": [FUSED_ON_CPU], "fused_add_rms_norm": [FUSED_ON_CPU]},
                # It would compile kernels of vLLM's own attention and sampling, which never run here.
                "enable_jit_warmup": False,
            },
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            "hf_overrides": overrides(config),
        }
        refusals = []
        for implementation in implementations(config, arguments["max_model_len"]):
            try:
                self._start(EngineArgs(**arguments, model_impl=implementation), reaches, check)
                return
            except HostError as error:
                # The frames of an error hold the weights that were loaded.
                refusals.append(HostError(str(error)))
            except LOADING_ERRORS as error:
                refusals.append(refusal(error, reason(error, config.model_type), config, model_dir))
            cleanup_dist_env_and_memory()
            logger.warning("vLLM's model_impl %r is not used: %s", implementation, refusals[-1])
        raise refusals[0]

    def _start(self, arguments: EngineArgs, reaches: Sequence[Reach | None], check: Callable[[TreeModel], None] | None) -> None:
        """Have vLLM load the model, prepare tree forwards, and check them."""
        # What is imported stays; without it among them, vLLM's own collections at a start take a second less.
        gc.freeze()
        with warnings.catch_warnings(), starting():
            # vLLM looks at every name of every module, also at those that torch has deprecated.
            warnings.filterwarnings("ignore", "`torch.distributed.reduce_op` is deprecated", FutureWarning)
            self._engine: Any = LLMEngine.from_engine_args(arguments)
        with ExitStack() as loaded:
            loaded.callback(self.close)
            found = self._engine.collective_rpc("tree_setup", args=(reaches, arguments.max_model_len))
            self.total_slots, self._projects = int(found[0][0]), all(projects for _, projects in found)
            if check is not None:
                check(self)
            loaded.pop_all()

    def score(self, batch: TreeBatch) -> Rows:
        """Run one forward; see `TreeModel`."""
        states: Tensor = self._engine.collective_rpc("tree_forward", args=(batch,))[0]
        rows = Rows(states, VllmHead(self._engine.collective_rpc, self.vocabulary_size, self._sets))
        return rows if self._projects else Rows.of(rows.logits())

    def close(self) -> None:
        """Shut vLLM down and free its memory, so that this process can load another model."""
        self._engine.engine_core.shutdown()
        del self._engine
        cleanup_dist_env_and_memory()
