#include "exchange/megatron_words.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "exchange/megatron_model.h"

namespace steelyard::exchange {
namespace {

using Words = std::vector<std::string>;

Error wrong(ErrorCode code, const char* name, std::string found, std::string accepted,
            std::string hint = {}) {
  Error error;
  error.code = code;
  error.subject = MegatronArguments::subject(name);
  error.found = std::move(found);
  error.accepted = std::move(accepted);
  error.hint = std::move(hint);
  return error;
}

Result<void> is_one_of(const char* name, const std::string& found, const Words& accepted) {
  if (std::ranges::find(accepted, found) != accepted.end()) return {};
  return fail(
      wrong(ErrorCode::bad_input, name, found, fmt::format("{}", fmt::join(accepted, ", "))));
}

// transformer/moe/moe_layer.py, router.py, token_dispatcher.py.
Result<void> check_experts(const MegatronArguments& arguments) {
  if (!arguments.optional_whole("num-experts")) return {};
  STEELYARD_CHECK(is_one_of("moe-token-dispatcher-type",
                            arguments.text("moe-token-dispatcher-type"),
                            {"allgather", "alltoall", "flex"}));
  for (const std::string& kind : arguments.list("moe-router-load-balancing-type")) {
    STEELYARD_CHECK(is_one_of(
        "moe-router-load-balancing-type", kind,
        {"aux_loss", "seq_aux_loss", "global_aux_loss", "sinkhorn", "quantile_balancing", "none"}));
  }
  // transformer_config.py asserts both.
  if (arguments.flag("moe-shared-expert-overlap")) {
    if (arguments.flag("overlap-moe-expert-parallel-comm")) {
      return fail(wrong(ErrorCode::impossible_combination, "moe-shared-expert-overlap", "true",
                        "false beside overlap-moe-expert-parallel-comm"));
    }
    if (arguments.text("moe-token-dispatcher-type") == "allgather") {
      return fail(wrong(ErrorCode::impossible_combination, "moe-shared-expert-overlap", "true",
                        "true with moe-token-dispatcher-type alltoall or flex"));
    }
  }
  if (arguments.text("moe-token-dispatcher-type") != "flex") return {};
  const std::string backend = arguments.text("moe-flex-dispatcher-backend");
  if (backend == "ncclep") {
    return fail(wrong(ErrorCode::not_supported, "moe-flex-dispatcher-backend", backend,
                      "deepep or hybridep", "its buffers are tensors by rules that are not built"));
  }
  return is_one_of("moe-flex-dispatcher-backend", backend, {"deepep", "hybridep"});
}

// transformer/dot_product_attention.py, fusions/fused_softmax.py: without the fused kernel the
// scores are widened for PyTorch's softmax only where this says so.
Result<void> check_softmax(const MegatronArguments& arguments) {
  const bool plain =
      arguments.text("transformer-impl") == "local" && !arguments.flag("masked-softmax-fusion");
  const bool wide = arguments.flag("attention-softmax-in-fp32") ||
                    arguments.flag("apply-query-key-layer-scaling");
  const bool is_short = arguments.flag("bf16") || arguments.flag("fp16");
  if (!plain || wide || !is_short) return {};
  return fail(wrong(ErrorCode::not_supported, "attention-softmax-in-fp32", "false", "true",
                    "a softmax of PyTorch's in 16 bits: this argument is understood, but its "
                    "effect is not built in this version"));
}

// Understood, but their effect is still to be built.
Result<void> check_unbuilt(const MegatronArguments& arguments) {
  const char* hint = "it is known, but what it does is not planned yet";
  for (const char* name : {"use-torch-fsdp2", "fp32-residual-connection",
                           "distribute-saved-activations", "fine-grained-activation-offloading"}) {
    if (!arguments.flag(name)) continue;
    return fail(wrong(ErrorCode::not_supported, name, "true", "a job without it", hint));
  }
  const std::int64_t layers = arguments.whole("cpu-offloading-num-layers");
  if (layers == 0) return {};
  return fail(wrong(ErrorCode::not_supported, "cpu-offloading-num-layers", std::to_string(layers),
                    "0", hint));
}

// HybridDeviceOptimizer: planned where the CPU steps all, from tensors pinned alike.
Result<void> check_hybrid_optimizer(const MegatronArguments& arguments) {
  if (!arguments.flag("optimizer-cpu-offload")) return {};
  if (!arguments.flag("use-precision-aware-optimizer")) {  // training/arguments.py asserts it
    return fail(wrong(ErrorCode::impossible_combination, "optimizer-cpu-offload", "true",
                      "true with use-precision-aware-optimizer"));
  }
  const double part = arguments.real("optimizer-offload-fraction");
  if (part != 1.0) {
    return fail(wrong(ErrorCode::not_supported, "optimizer-offload-fraction",
                      fmt::format("{:g}", part), "1",
                      "what is stepped in parts on both sides is not planned yet"));
  }
  const bool pins = arguments.flag("pin-cpu-grads");
  if (arguments.flag("pin-cpu-params") != pins) {
    return fail(wrong(ErrorCode::not_supported, pins ? "pin-cpu-params" : "pin-cpu-grads", "false",
                      "both pin-cpu-params and pin-cpu-grads, or none"));
  }
  return {};
}

// Transformer Engine's FusedAttnFunc, and Megatron-LM's TELMHeadColumnParallelLinear, an output
// matrix of its own that is held in 16 bits: planned with scales per 32 elements.
Result<void> check_further_fp8(const MegatronArguments& arguments) {
  for (const char* name : {"fp8-dot-product-attention", "fp8-output-proj"}) {
    if (!arguments.flag(name)) continue;
    const std::string recipe =
        arguments.text("fp8-format").empty() ? "no fp8-format" : arguments.text("fp8-recipe");
    if (recipe == "mxfp8") continue;
    return fail(wrong(ErrorCode::not_supported, name, "true with " + recipe,
                      "true with fp8-recipe mxfp8", "with other scales it is not planned yet"));
  }
  if (arguments.flag("fp8-dot-product-attention") && arguments.whole("context-parallel-size") > 1) {
    return fail(wrong(ErrorCode::not_supported, "fp8-dot-product-attention",
                      "true with context-parallel-size above 1", "true without",
                      "attention in fp8 over several ranks is not planned yet"));
  }
  if (!arguments.flag("fp8-output-proj")) return {};
  if (arguments.flag("fp8-param-gather")) {
    return fail(wrong(ErrorCode::not_supported, "fp8-output-proj", "true with fp8-param-gather",
                      "one of them", "matrices held in two types of fp8 are not planned yet"));
  }
  if (arguments.flag("untie-embeddings-and-output-weights")) return {};
  return fail(wrong(ErrorCode::impossible_combination, "fp8-output-proj", "true",
                    "true with untie-embeddings-and-output-weights",
                    "Transformer Engine's layer needs an output matrix of its own"));
}

}  // namespace

// megatron/legacy/model/transformer.py; with Transformer Engine they are its own TransformerLayer.
bool runs_legacy_layers(const MegatronArguments& arguments) {
  return arguments.flag("use-legacy-models") && arguments.text("transformer-impl") == "local";
}

// bias_activation_fusion is --bias-swiglu-fusion's or --bias-gelu-fusion's, by the activation;
// configurations may say it themselves.
bool fuses_activation(const MegatronArguments& arguments) {
  if (runs_legacy_layers(arguments) && arguments.flag("swiglu")) return false;
  if (arguments.given("bias-activation-fusion")) return arguments.flag("bias-activation-fusion");
  return arguments.flag(arguments.flag("swiglu") ? "bias-swiglu-fusion" : "bias-gelu-fusion");
}

std::map<std::string, std::string, std::less<>> words_of(const MegatronArguments& arguments) {
  std::map<std::string, std::string, std::less<>> words;
  // datasets/t5_dataset.py makes masks of its own.
  const bool mask = arguments.flag("create-attention-mask-in-dataloader");
  words["attention_mask"] = mask && !is_encoder_decoder(arguments) ? "in_batch" : "none";
  words["pipeline_transfers"] =
      arguments.flag("overlap-p2p-communication") ? "overlapped" : "waited_for";
  // extensions/transformer_engine.py: is_first_microbatch is not passed on.
  if (arguments.flag("disable-parameter-transpose-cache")) words["fp8_weights"] = "cast_each_time";
  if (arguments.flag("fp8-dot-product-attention")) words["fp8_attention"] = "cast";
  if (arguments.flag("fp8-output-proj")) words["fp8_logits"] = "cast";
  if (arguments.flag("moe-shared-expert-overlap")) words["shared_experts"] = "beside_exchanges";
  // token_dispatcher.py: padded experts get as many rows as ever; graphs of the whole step cannot
  // wait for the host (moe_expert_rank_capacity_factor); beside another micro-batch's pass the GPU
  // has that one's kernels to go on with.
  const bool padded = arguments.real("moe-expert-capacity-factor") > 0.0 &&
                      arguments.flag("moe-pad-expert-input-to-capacity");
  if (padded || arguments.text("cuda-graph-impl") == "full_iteration" ||
      arguments.flag("overlap-moe-expert-parallel-comm")) {
    words["expert_counts"] = "on_card";
  }
  return words;
}

Result<void> add_graph_words(const MegatronArguments& arguments,
                             std::map<std::string, std::string, std::less<>>& operators) {
  const std::string graphs = arguments.text("cuda-graph-impl");
  if (graphs == "none") return {};
  const std::vector<std::string> modules = arguments.list("cuda-graph-modules");
  const bool whole =
      graphs == "full_iteration" || std::ranges::find(modules, "full_iteration") != modules.end();
  if (!whole && graphs != "transformer_engine" && graphs != "local") {
    return fail(wrong(ErrorCode::bad_input, "cuda-graph-impl", graphs,
                      "none, local, transformer_engine or full_iteration"));
  }
  operators["launches"] = whole ? "graphs" : "graphs_of_modules";
  if (!whole) {
    operators["graphed_modules"] =
        modules.empty() ? "layers" : fmt::format(" {} ", fmt::join(modules, " "));
  }
  return {};
}

Result<void> check_words(const MegatronArguments& arguments) {
  STEELYARD_CHECK(check_unbuilt(arguments));
  STEELYARD_CHECK(check_experts(arguments));
  STEELYARD_CHECK(check_softmax(arguments));
  STEELYARD_CHECK(check_hybrid_optimizer(arguments));
  STEELYARD_CHECK(check_further_fp8(arguments));
  // training/arguments.py asserts it.
  if (arguments.text("recompute-granularity") == "selective" &&
      !arguments.text("recompute-method").empty()) {
    return fail(wrong(ErrorCode::impossible_combination, "recompute-method",
                      arguments.text("recompute-method"),
                      "none beside recompute-granularity selective"));
  }
  return {};
}

Result<void> check_recomputed_modules(const std::vector<std::string>& modules) {
  const Words known = {"moe_act", "layernorm", "mla_up_proj", "mlp", "moe", "shared_experts"};
  for (const std::string& module : modules) {
    if (std::ranges::find(known, module) != known.end()) continue;
    return fail(wrong(ErrorCode::not_supported, "recompute-modules", module,
                      fmt::format("core_attn, {}", fmt::join(known, ", ")),
                      "it is known, but what it does is not planned yet"));
  }
  return {};
}

}  // namespace steelyard::exchange
