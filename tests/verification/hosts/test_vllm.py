"""Families whose layers ask for more than plain attention on the vLLM host: lists equal transformers' `generate`, plain and drafted."""

import json
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from drafting.plans.fixed_plan import FixedPlan
from tests.models import random_catalog, save_family_model, save_random_model
from tests.oracles import generate_lists
from tests.verification.engine.test_beam_search import HOSTS, as_pairs, assert_same
from tests.verification.hosts.test_families import EXPERTS, WINDOW
from verification.evaluation.generate import PrefixTable
from verification.hosts.attention import Reach, View
from verification.hosts.checkpoint import HostError
from verification.hosts.layer_reaches import layer_reaches
from verification.hosts.vllm_families import check_family, implementations, overrides
from verification.recommender import Recommender

needs_vllm = pytest.mark.skipif(HOSTS[1].marks[0].args[0], reason="vLLM is not installed")
CATALOG = random_catalog(items=120, depth=4, codes=6)
TIED = {"tie_word_embeddings": True}
CHUNKS = {"intermediate_size_mlp": 96, "attention_chunk_size": 6, "attn_temperature_tuning": False, "num_experts_per_tok": 1}
# Windows and chunks are shorter than a prompt. vLLM by itself does not start with the first, and lets layers of the three after it share
# their memory; its context begins with experts in the third and the fourth. The last needs transformers' code.
SERVED: dict[str, tuple[str, dict[str, Any]]] = {
    "windows in the last layers": ("qwen2", {**WINDOW, "use_sliding_window": True, "max_window_layers": 1}),
    "soft cap and windows": ("gemma2", {**TIED, **WINDOW, "attn_logit_softcapping": 2.0}),
    "sinks and windows": ("gpt_oss", {**EXPERTS, **WINDOW}),
    "chunks": ("llama4_text", {**EXPERTS, **CHUNKS}),
    "biases by position": ("bloom", {**TIED, "hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 6}),
    "biases by position in bfloat16": ("falcon", {**TIED, "num_attention_heads": 16, "num_kv_heads": 16, "alibi": True}),
    "a head of its own, which vLLM leaves out": ("cohere2", WINDOW),
}


@needs_vllm
@pytest.mark.parametrize("feature", SERVED)
def test_lists_equal_generate(feature: str, tmp_path: Path) -> None:
    family, settings = SERVED[feature]
    folder = save_family_model(tmp_path / "model", CATALOG, family, **settings)
    # Qwen's tokenizer adds a token, which a draft's embeddings must have as well.
    draft = save_family_model(tmp_path / "draft", CATALOG, "qwen2" if family == "qwen2" else "llama", vocab_size=64)
    # Written out, transformers adds Falcon's biases twice.
    reference = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa" if family == "falcon" else "eager").eval()
    recommender = Recommender.load(folder, CATALOG, draft=draft, host="vllm", kv_memory_gib=0.05)
    identifiers = recommender.catalog.token_ids(AutoTokenizer.from_pretrained(folder).get_vocab())
    histories = [np.random.default_rng(length).integers(len(CATALOG), size=length).tolist() for length in (1, 2, 3, 4, 5)]
    prompts = [recommender.prompts.build(history) for history in histories]
    expected = [generate_lists(reference, [prompt], PrefixTable(identifiers), 8, CATALOG.identifier_length)[0] for prompt in prompts]
    for plan in ("none", "trie", "beam:6"):
        recommender.engine.use_plan(FixedPlan.parse(plan))
        together, alone = recommender.recommend(histories, 8, 8), recommender.recommend(histories[-1:], 8, 8)
        for result, wanted in zip([*together, *alone], [*expected, expected[-1]], strict=True):
            assert_same(as_pairs(result, identifiers), wanted)
    recommender.close()


WRONG = [
    ("cohere2_moe", {"tie_word_embeddings": False}),
    ("jetmoe", {}),
    ("gpt2", {"scale_attn_weights": False}),
    ("olmoe", {"clip_qkv": 0.8}),
    ("qwen2_moe", {"qkv_bias": False}),
    *(("gpt_oss", {"swiglu_alpha": 1.0}), ("gpt_oss", {"swiglu_limit": 10.0})),
]
OWN_CODE = [
    *(
        ("gpt2", {}),
        ("olmoe", {}),
        ("cohere2_moe", {"tie_word_embeddings": True}),
        ("cohere", {}),
        ("cohere2", {}),
        ("ernie4_5", {}),
        ("qwen3", {}),
        ("qwen2_moe", {}),
        ("exaone_moe", {}),
    ),
    *(("llama", {"attention_bias": True}), ("glm4", {"attention_bias": True}), ("gpt_oss", {})),
]
THEIR_CODE: list[tuple[str, dict[str, Any]]] = [
    *(("apertus", {}), ("cohere", {"tie_word_embeddings": False}), ("cohere2", {"tie_word_embeddings": False})),
    *(("cohere", {"attention_bias": True}), ("qwen3_moe", {"attention_bias": True}), ("ernie4_5", {"use_bias": True})),
    *(("olmoe", {"norm_topk_prob": True}), ("olmoe", {"rms_norm_eps": 1e-6})),
    *(("gpt_oss", {"attention_bias": False}), ("gpt_oss", {"rms_norm_eps": 1e-6})),
    *((family, {"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}) for family in ("exaone4", "exaone_moe")),
]


def test_what_vllm_computes_otherwise_is_known_without_a_self_check() -> None:
    for family, settings in WRONG:
        with pytest.raises(HostError, match=f"^vLLM computes models of type {family} .*otherwise than transformers: use --engine tr"):
            check_family(AutoConfig.for_model(family, **settings))
    for family, settings in [*OWN_CODE, *THEIR_CODE]:
        config = AutoConfig.for_model(family, **settings)
        check_family(config)
        assert implementations(config, 512) == (("transformers",) if (family, settings) in THEIR_CODE else ("auto", "transformers")), family


def test_a_factor_of_logits_is_left_to_vllms_own_code() -> None:
    """Its layers in transformers' code leave out that of Granite and its kin, so no error of its own code may lead there."""
    for family in ("granite", "granitemoe", "hyperclovax"):
        assert implementations(AutoConfig.for_model(family, logits_scaling=8.0), 512) == ("auto",)
        assert implementations(AutoConfig.for_model(family, logits_scaling=1.0), 512) == ("auto", "transformers")
    biased = {"attention_bias": True, "logits_scaling": 8.0}
    check_family(AutoConfig.for_model("granite", **biased))
    check_family(AutoConfig.for_model("granitemoe", attention_bias=True))
    with pytest.raises(HostError, match=r"^vLLM computes models of type granitemoe with attention_bias and logits_scaling otherwise"):
        check_family(AutoConfig.for_model("granitemoe", **biased))


def test_a_temperature_by_position_is_left_to_transformers_code_where_texts_reach_it() -> None:
    """It is 1 for the first positions, and vLLM's own code looks for it elsewhere."""
    config = AutoConfig.for_model("ministral3")
    assert config.rope_parameters["original_max_position_embeddings"] == 16384
    assert implementations(config, 16384) == ("auto", "transformers")
    assert implementations(config, 16385) == ("transformers",)
    config.rope_parameters["llama_4_scaling_beta"] = 0.0
    assert implementations(config, 16385) == ("auto", "transformers")


def test_positions_that_vllms_own_code_has_not_are_left_to_transformers_code() -> None:
    """Its table of YaRN's ends at the original length times the factor, however many tokens the model reads."""
    yarn = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 2.0, "original_max_position_embeddings": 64}
    plain = AutoConfig.for_model("llama", max_position_embeddings=256, rope_parameters={**yarn})
    by_layer = {"sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0}, "full_attention": {**yarn}}
    nested = AutoConfig.for_model("gemma3_text", max_position_embeddings=256, rope_parameters=by_layer)
    for config in (plain, nested):
        assert implementations(config, 128) == ("auto", "transformers")
        assert implementations(config, 129) == ("transformers",)
    # Only vLLM's own code divides logits.
    granite = AutoConfig.for_model("granite", max_position_embeddings=256, logits_scaling=8.0, rope_parameters={**yarn})
    assert implementations(granite, 128) == ("auto",)
    with pytest.raises(HostError, match=r"^vLLM computes models of type granite with logits_scaling .* up to 129 tokens: use --engine"):
        implementations(granite, 129)


def test_a_factor_of_longrope_that_vllms_own_code_leaves_unread_is_left_to_transformers_code() -> None:
    """A Phi-3 in the form of a Llama, say, is saved with an attention_factor."""
    longrope = {"rope_type": "longrope", "rope_theta": 10_000.0, "original_max_position_embeddings": 64}
    factors = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}

    def of(**more: float) -> Any:
        rotary = {**longrope, **factors, **more}
        return AutoConfig.for_model("llama", head_dim=16, max_position_embeddings=256, rope_parameters=rotary)

    for config in (of(), of(factor=4.0)):
        assert implementations(config, 64) == ("auto", "transformers")
    for config in (of(factor=8.0), of(attention_factor=1.5), of(short_mscale=1.2)):
        assert implementations(config, 64) == ("transformers",)


def test_the_class_is_that_of_the_models_type() -> None:
    for family, name in (("qwen2", "Qwen2ForCausalLM"), ("gpt-sw3", "GPT2LMHeadModel"), ("llama4_text", "Llama4ForCausalLM")):
        assert overrides(AutoConfig.for_model(family, architectures=["MistralForCausalLM"]))["architectures"] == [name]
    # There is no class of this type with a head for tokens.
    assert "architectures" not in overrides(AutoConfig.for_model("siglip"))


@needs_vllm
@pytest.mark.parametrize("named", [["LlamaForCausalLM", "Qwen2ForCausalLM"], None])
def test_vllm_chooses_that_class_whatever_the_file_names(named: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself it would take the first one, which leaves out the biases of a Qwen2, and one that embeds texts if none is named."""
    from verification.hosts import vllm as module

    chosen = []

    def start(arguments: Any) -> None:
        chosen.append(arguments.create_engine_config().model_config.architecture)
        raise ValueError("It is enough to know what it would run")

    monkeypatch.setattr(module.LLMEngine, "from_engine_args", start)
    folder = save_random_model(tmp_path / "model", CATALOG, family="qwen2")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": named}))
    with pytest.raises(HostError, match="It is enough to know what it would run"):
        module.VllmHost(folder, kv_memory_gib=0.05)
    assert chosen == ["Qwen2ForCausalLM", "TransformersForCausalLM"]


@needs_vllm
def test_it_is_refused_before_weights_are_read(tmp_path: Path) -> None:
    folder = save_family_model(tmp_path / "model", CATALOG, "gpt2", scale_attn_weights=False)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(HostError, match=r"^vLLM computes models of type gpt2 without scale_attn_weights otherwise"):
        Recommender.load(folder, CATALOG, host="vllm", kv_memory_gib=0.05, verify="never")


@needs_vllm
def test_whatever_ends_a_start_frees_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try is closed before the next, and the error that is told holds no frames, in which weights would live on."""
    from verification.hosts import vllm as module

    class Engine:
        open = 0

        def __init__(self) -> None:
            Engine.open += 1
            assert Engine.open == 1
            self.engine_core = self

        def collective_rpc(self, name: str, args: object) -> None:
            raise RuntimeError("The size of tensor a (64) must match")

        def shutdown(self) -> None:
            Engine.open -= 1

    monkeypatch.setattr(module.LLMEngine, "from_engine_args", lambda arguments: Engine())
    folder = save_random_model(tmp_path / "model", CATALOG)
    with pytest.raises(HostError) as refused:
        module.VllmHost(folder, kv_memory_gib=0.05)
    assert Engine.open == 0
    assert refused.value.__cause__ is refused.value.__context__ is None
    sentence = 'vLLM cannot run this model (llama) here: "The size of tensor a (64) must match"; try --engine transformers'
    assert str(refused.value) == f"The model in {folder} cannot be loaded: {sentence}"


@needs_vllm
def test_what_a_recorded_forward_writes_to_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay writes to the workspace of its recording, which vLLM frees when another forward needs a larger one."""
    from vllm.v1.worker.workspace import WorkspaceManager

    from verification.hosts import vllm as module

    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)
    monkeypatch.setattr(module, "is_workspace_manager_initialized", lambda: True)
    freed = []
    for is_recorded in (True, False):
        manager = WorkspaceManager(torch.device("cpu"))
        monkeypatch.setattr(module, "current_workspace_manager", lambda manager=manager: manager)
        worker = module.TreeWorker()
        worker.tree_workspaces = {}
        worker.keep_workspaces()
        manager.get_simultaneous(((64,), torch.uint8))
        written = weakref.ref(manager._current_workspaces[0])
        if is_recorded:
            worker.keep_workspaces()
        manager.get_simultaneous(((4096,), torch.uint8))
        freed.append(written() is None)
    assert freed == [False, True]


@needs_vllm
@pytest.mark.parametrize(("embeddings", "tried"), [([64], 64), ([16, 64], 64), ([32], 32), ([16, 32], None), ([], None)])
def test_a_head_is_tried_with_states_of_its_size(embeddings: list[int], tried: int | None) -> None:
    """That of OPT models may be another than of layers, and one that vLLM multiplies by in memory which is not its own."""
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    from verification.hosts.vllm_head import HeadWorker

    class Embedding(VocabParallelEmbedding):
        def __init__(self, size: int) -> None:
            torch.nn.Module.__init__(self)
            self.embedding_dim = size

    class Model(torch.nn.ModuleList):
        asked: list[int]

        def compute_logits(self, states: torch.Tensor) -> torch.Tensor:
            self.asked.append(states.shape[1])
            return states

    worker, model = HeadWorker(), Model(map(Embedding, embeddings))
    worker.vllm_config = SimpleNamespace(model_config=SimpleNamespace(get_hidden_size=lambda: 64, dtype=torch.float32, quantization=None))
    worker.model_runner, worker.device = SimpleNamespace(get_model=lambda: model), torch.device("cpu")
    model.asked = []
    assert not worker.find_head()
    assert model.asked == ([] if tried is None else [tried])


def test_a_layer_attends_as_far_back_as_transformers_says() -> None:
    def reaches(family: str, **settings: Any) -> list[Reach | None]:
        return layer_reaches(AutoConfig.for_model(family, num_hidden_layers=2, **settings))

    assert reaches("llama") == [None, None]
    assert reaches("mistral", sliding_window=7) == [Reach(7)] * 2
    assert reaches("mistral", sliding_window=None) == [None, None]
    assert reaches("qwen2", sliding_window=7, use_sliding_window=True, max_window_layers=1) == [None, Reach(7)]
    assert reaches("qwen2", sliding_window=7, use_sliding_window=False, max_window_layers=1) == [None, None]
    assert reaches("gemma2", sliding_window=7) == [Reach(7), None]
    chunks = {"attention_chunk_size": 6, "layer_types": ["chunked_attention", "full_attention"]}
    assert reaches("llama4_text", **chunks) == [Reach(6, chunked=True), None]
    # What transformers' code of a family leaves unread.
    assert reaches("llama", sliding_window=7) == reaches("llama", attention_chunk_size=6) == [None, None]
    assert reaches("mixtral", sliding_window=7, layer_types=["sliding_attention", "full_attention"]) == [Reach(7)] * 2
    with pytest.raises(HostError, match="layers with windows or chunks, but not their size"):
        reaches("gemma2", sliding_window=None)


@needs_vllm
def test_a_window_of_vllm_that_transformers_has_not_is_refused_where_texts_reach_beyond_it() -> None:
    from verification.hosts import vllm as module

    layer = SimpleNamespace(sliding_window=7, impl=SimpleNamespace(tree_alibi=None))
    assert module._view(layer, Reach(7), 8, False) == View(Reach(7))
    assert module._view(layer, None, 7, False) == View()
    with pytest.raises(HostError, match=r"^vLLM gives layers of this model other windows than transformers: use --engine transformers\.$"):
        module._view(layer, None, 8, False)
