"""What the vLLM host relies on in vLLM beyond the names that it imports, on a GPU."""

from benchmarks.gpu.wheel.check import Fact

LAYER = "vllm.model_executor.layers.attention.attention"
TRITON = "vllm.v1.attention.backends.triton_attn"
WORKER = "vllm.v1.worker"
EXECUTOR = "vllm.v1.executor.multiproc_executor"
LAYOUTS = "vllm.v1.attention.backends.utils"
LAYERS = "vllm.model_executor.layers"
ONLINE = f"{LAYERS}.quantization.online"
IMPLEMENTATION = (
    *("self", "num_heads", "head_size", "scale", "num_kv_heads", "alibi_slopes", "sliding_window", "kv_cache_dtype"),
    *("logits_soft_cap=None", "attn_type=AttentionType.DECODER", "kv_sharing_target_layer_name=None", "sinks=None"),
)
HANDED_OVER = (
    "num_heads, head_size, scale, num_kv_heads, alibi_slopes, sliding_window, kv_cache_dtype, logits_soft_cap, attn_type, "
    "kv_sharing_target_layer_name, **extra_impl_args"
)
FORWARD = ("self", "layer", "query", "key", "value", "kv_cache", "attn_metadata", "output")
CALL = "self.impl.forward(self, query, key, value, kv_cache, attn_metadata, output=output, output_scale=output_scale"

FACTS = (
    # The attention backend
    Fact(f"{TRITON}:TritonAttentionImpl.__init__", "called with these arguments", takes=IMPLEMENTATION),
    Fact(f"{TRITON}:TritonAttentionImpl.__init__", "0 is no soft cap; sinks are kept", says=("logits_soft_cap = 0", "self.sinks = sinks")),
    Fact(f"{TRITON}:TritonAttentionImpl.forward", "overridden", takes=FORWARD),
    Fact(f"{TRITON}:TritonAttentionBackend.supports_block_size", "blocks of 32 slots", says=("block_size % 16 == 0",)),
    Fact(f"{TRITON}:TritonAttentionBackend.supports_head_size", "overridden: it refuses small heads", takes=("cls", "head_size")),
    Fact(f"{TRITON}:TritonAttentionBackend.supported_dtypes", "models in float32", says=("torch.float32", "torch.bfloat16")),
    Fact(f"{TRITON}:TritonAttentionBackend.get_name", "the name of a member of the registry", says=("'TRITON_ATTN'",)),
    Fact(f"{TRITON}:TritonAttentionBackend.supports_sink", "sinks", says=("return True",)),
    Fact(f"{TRITON}:TritonAttentionBackend.supports_sliding_window", "layers of windows", says=("return True",)),
    Fact(f"{TRITON}:TritonAttentionMetadataBuilder._cudagraph_support", "asked for at start, not used: forwards are eager"),
    Fact("vllm.v1.attention.backend:AttentionMetadataBuilder.get_cudagraph_support", "asked for at start"),
    Fact("vllm.v1.attention.backend:AttentionBackend.customize_spec", "overridden", takes=("cls", "spec")),
    Fact("vllm.v1.attention.backend:AttentionBackend.forward_includes_kv_cache_update", "overridden"),
    Fact("vllm.v1.attention.backend:AttentionBackend.supported_kv_cache_layouts", "overridden", takes=("cls",)),
    Fact("vllm.v1.attention.backends.registry:register_backend", "called", takes=("backend", "class_path=None")),
    Fact("vllm.v1.attention.backends.registry:AttentionBackendEnum.CUSTOM", "the backend on GPUs"),
    Fact("vllm.platforms.cuda:CudaPlatformBase.get_attn_backend_cls", "asks the backend", says=("backend_class.validate_configuration(",)),
    # A layer of attention
    Fact(
        f"{LAYER}:Attention.__init__",
        "makes the implementation",
        says=(f"impl_cls({HANDED_OVER})", "static_forward_context[prefix] = self"),
    ),
    Fact(
        f"{LAYER}:Attention.__init__", "its backend has a member of that name", says=("AttentionBackendEnum[self.attn_backend.get_name()]",)
    ),
    Fact(f"{LAYER}:Attention.forward", "output of heads by size of values", says=("output.view(-1, self.num_heads, self.head_size_v)",)),
    Fact(f"{LAYER}:Attention.forward", "no write of vLLM's", says=("not self.attn_backend.forward_includes_kv_cache_update",)),
    *(Fact(f"{LAYER}:Attention.{name}", "read of a layer") for name in ("head_size", "head_size_v", "num_kv_heads", "kv_cache", "impl")),
    *(Fact(f"{LAYER}:Attention.{name}", "read of a layer") for name in ("sliding_window", "kv_sharing_target_layer_name")),
    Fact(f"{LAYER}:get_attention_context", "metadata by name of layer", says=("attn_metadata_raw[layer_name]",)),
    Fact(f"{LAYER}:unified_attention_with_output", "how a layer calls it", says=(CALL,)),
    Fact("vllm.model_executor.layers.attention:ChunkedLocalAttention.attention_chunk_size", "read of a layer"),
    # Memory of keys and values
    Fact("vllm.v1.kv_cache_layout:KVCacheLayout.LBHNC", "dense in the order of its axes", says=("(0, 1, 2, 3, 4)",)),
    Fact(f"{LAYOUTS}:get_supported_kv_cache_layouts", "asks the backend", says=("backend.supported_kv_cache_layouts()",)),
    Fact(f"{WORKER}.utils:customize_attention_spec", "asks the backend", says=("backend.customize_spec(spec)",)),
    Fact(f"{WORKER}.gpu.attn_utils:get_kv_cache_spec", "of every layer", says=("customize_attention_spec(",)),
    Fact(f"{WORKER}.utils:allocate_kv_cache", "zeros, so that masked slots are finite", says=("torch.zeros(buf_size",)),
    *(Fact(f"vllm.v1.kv_cache_interface:FullAttentionSpec.{name}", "set") for name in ("block_size", "head_size_v", "num_kv_heads")),
    # A forward
    Fact("vllm.forward_context:set_forward_context", "called", takes=("attn_metadata", "vllm_config", "num_tokens=None")),
    Fact("vllm.model_executor.layers.logits_processor:LogitsProcessor._get_logits", "no padding", says=("[..., :self.org_vocab_size]",)),
    Fact("vllm.platforms.interface:Platform.is_unspecified", "asked before anything else", takes=("self",)),
    Fact("vllm.platforms.interface:Platform.use_all_gather", "the first rank has all logits", says=("return True",)),
    Fact(f"{WORKER}.gpu.model_runner:GPUModelRunner.get_model", "called", takes=("self",)),
    Fact(f"{WORKER}.gpu_model_runner:GPUModelRunner.get_model", "called", takes=("self",)),
    Fact(f"{WORKER}.workspace:WorkspaceManager._current_workspaces", "kept for recorded forwards"),
    Fact(
        f"{WORKER}.workspace:WorkspaceManager._ensure_workspace_size",
        "frees those that are outgrown",
        says=("self._current_workspaces[workspace_id] = None",),
    ),
    # The worker and its start
    Fact(f"{WORKER}.worker_base:WorkerWrapperBase.init_worker", "adds methods", says=("parallel_config.worker_extension_cls",)),
    *(Fact(f"{WORKER}.gpu_worker:Worker.{name}", "read") for name in ("device", "model_runner", "rank", "vllm_config")),
    Fact(f"{WORKER}.gpu_worker:Worker.determine_available_memory", "memory as told", says=("self.cache_config.kv_cache_memory_bytes",)),
    Fact(f"{WORKER}.gpu_worker:Worker", "no graphs", says=("if not self.model_config.enforce_eager:",)),
    Fact(f"{WORKER}.gpu_worker:Worker", "no made-up requests", says=("if self.vllm_config.kernel_config.enable_jit_warmup:",)),
    Fact(f"{WORKER}.utils:request_memory", "a share must be free", says=("cache_config.gpu_memory_utilization",)),
    Fact("vllm.config.cache:CacheConfig.gpu_memory_utilization", "next to nothing is allowed", says=("gt=0",)),
    Fact("vllm.config.kernel:KernelConfig.enable_jit_warmup", "set"),
    Fact("vllm.config.kernel:IrOpPriorityConfig.rms_norm", "set"),
    Fact("vllm.config.kernel:IrOpPriorityConfig.fused_add_rms_norm", "set"),
    Fact("vllm.config.kernel:KernelConfig.set_platform_defaults", "the platform's come after ours", says=("current_op_priority.extend(",)),
    Fact("vllm.config.attention:AttentionConfig.backend", "set"),
    Fact("vllm.v1.engine.llm_engine:LLMEngine.from_engine_args", "called", takes=("cls", "engine_args")),
    Fact("vllm.v1.engine.llm_engine:LLMEngine.collective_rpc", "called", takes=("self", "method", "timeout=None", "args=()")),
    Fact(f"{EXECUTOR}:WorkerProc.wait_for_ready", "the class of all errors, if a process does not start", says=("e = Exception(",)),
    # What the host changes of vLLM
    Fact("vllm.model_executor.models.registry:_run_in_subprocess", "replaced on CPUs", takes=("fn",)),
    Fact("vllm.model_executor.models.transformers.base:Base._decorate_for_torch_compile", "replaced", takes=("self",)),
    Fact("vllm.model_executor.models.bloom:BloomMLP.gelu_impl", "replaced"),
    Fact(
        "vllm.v1.core.kv_cache_utils:_check_enough_kv_cache_memory",
        "replaced",
        takes=("available_memory", "get_needed_memory", "max_model_len", "estimate_max_model_len"),
    ),
    Fact("vllm.v1.core.kv_cache_utils:get_kv_cache_configs", "asks what is replaced", says=("_check_enough_kv_cache_memory(avail_mem,",)),
    # Heads
    Fact(
        f"{LAYERS}.logits_processor:LogitsProcessor.forward", "replaced", takes=("self", "lm_head", "hidden_states", "embedding_bias=None")
    ),
    *(
        Fact(f"{LAYERS}.logits_processor:LogitsProcessor.{name}", "read")
        for name in ("head_dtype", "logits_as_input", "org_vocab_size", "scale", "soft_cap")
    ),
    *(
        Fact(f"{LAYERS}.vocab_parallel_embedding:VocabParallelEmbedding.{name}", "read")
        for name in ("embedding_dim", "quant_method", "shard_indices", "tp_size")
    ),
    # Weights of 8 bits
    Fact(f"{LAYERS}.linear:UnquantizedLinearMethod.apply", "overridden", takes=("self", "layer", "x", "bias=None")),
    Fact(f"{LAYERS}.linear:UnquantizedLinearMethod.process_weights_after_loading", "overridden", takes=("self", "layer")),
    Fact(f"{LAYERS}.quantization.base_config:QuantizationConfig.get_quant_method", "overridden", takes=("self", "layer", "prefix")),
    Fact(f"{LAYERS}.quantization.base_config:QuantizationConfig.from_config", "overridden", takes=("cls", "config")),
    # Quantizing while loading
    Fact("vllm.config.quantization:_ONLINE_SHORTHANDS", "what fp8 is", says=("'fp8_per_channel'",)),
    Fact(f"{ONLINE}.fp8:Fp8PtpcOnlineLinearMethod.activation_quant_key", "scales by the token", says=("kFp8DynamicTokenSym",)),
    Fact(f"{ONLINE}.fp8:Fp8PtpcOnlineMoEMethod.per_act_token_quant", "scales by the token", says=("True",)),
)
