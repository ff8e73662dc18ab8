#include "exchange/megatron_model.h"

#include <algorithm>
#include <string>

#include "exchange/megatron_words.h"

namespace steelyard::exchange {
namespace {

// Arguments that go into the configuration as they are; null when absent and without a default.
constexpr const char* kModelArguments[] = {
    "hidden-size",
    "num-attention-heads",
    "vocab-size",
    "padded-vocab-size",
    "vocab-extra-ids",
    "make-vocab-size-divisible-by",
    "max-position-embeddings",
    "position-embedding-type",
    "rotary-percent",
    "normalization",
    "untie-embeddings-and-output-weights",
    "add-bias-linear",
    "add-qkv-bias",
    "swiglu",
    "squared-relu",
    "quick-geglu",
    "openai-gelu",
    "qk-layernorm",
    "hidden-dropout",
    "attention-dropout",
    "window-size",
    "window-attn-skip-freq",
    "softmax-type",
    "embed-layernorm",
    "multi-latent-attention",
    "transformer-impl",
    "use-legacy-models",
    "q-lora-rank",
    "kv-lora-rank",
    "qk-head-dim",
    "qk-pos-emb-head-dim",
    "v-head-dim",
    "num-experts",
    "moe-layer-freq",
    "moe-ffn-hidden-size",
    "moe-shared-expert-intermediate-size",
    "moe-router-topk",
    "moe-router-dtype",
    "moe-router-score-function",
    "moe-router-enable-expert-bias",
    "moe-router-pre-softmax",
    "moe-grouped-gemm",
    "moe-token-dispatcher-type",
    "moe-expert-capacity-factor",
    "moe-pad-expert-input-to-capacity",
    "moe-latent-size",
    "mtp-num-layers",
    "mtp-use-repeated-layer",
    "is-hybrid-model",
    "mamba-state-dim",
    "mamba-head-dim",
    "mamba-num-groups",
    "mamba-num-heads",
    "fp32-residual-connection",
};

Error missing(const char* name) {
  Error error;
  error.code = ErrorCode::missing_value;
  error.subject = MegatronArguments::subject(name);
  error.found = "no such argument";
  error.accepted = "a whole number: Megatron-LM has no default for it";
  return error;
}

// megatron/training/arguments.py: 4 x hidden, with SwiGLU two thirds of that in multiples of 64.
std::int64_t default_ffn(const MegatronArguments& arguments, std::int64_t hidden) {
  if (!arguments.flag("swiglu")) return 4 * hidden;
  const double two_thirds = static_cast<double>(4 * hidden * 2) / 3.0;
  return static_cast<std::int64_t>(two_thirds / 64.0) * 64;
}

}  // namespace

// pretrain_t5.py is no argument; only it reads these.
bool is_encoder_decoder(const MegatronArguments& arguments) {
  return arguments.given("decoder-num-layers") || arguments.given("decoder-seq-length");
}

// training/arguments.py: the older way names the layers of further predictions apart.
std::string hybrid_pattern(const MegatronArguments& arguments) {
  std::string pattern = arguments.text("hybrid-layer-pattern");
  const std::string further = arguments.text("mtp-hybrid-override-pattern");
  if (pattern.empty() || further.empty() || pattern.find('/') != std::string::npos) return pattern;
  const std::int64_t count = arguments.optional_whole("mtp-num-layers").value_or(0);
  for (std::int64_t i = 0; i < count; ++i) pattern += "/" + further;
  return pattern;
}

Result<std::int64_t> layers_of(const MegatronArguments& arguments) {
  const std::string pattern = hybrid_pattern(arguments);
  if (!pattern.empty()) {
    const auto end =
        pattern.begin() + static_cast<std::ptrdiff_t>(std::min(pattern.find('/'), pattern.size()));
    return std::count_if(pattern.begin(), end, [](char letter) { return letter != '|'; });
  }
  if (const auto layers = arguments.optional_whole("num-layers")) return *layers;
  if (const auto layers = arguments.optional_whole("encoder-num-layers")) return *layers;
  return fail(missing("num-layers"));
}

Result<facts::Value> megatron_model(const MegatronArguments& arguments, std::int64_t tensor) {
  STEELYARD_TRY(layers, layers_of(arguments));
  for (const char* name : {"hidden-size", "num-attention-heads", "max-position-embeddings"}) {
    if (!arguments.optional_whole(name)) return fail(missing(name));
  }
  const std::int64_t hidden = arguments.whole("hidden-size");
  const std::int64_t heads = arguments.whole("num-attention-heads");
  facts::Value config{facts::Object{}};
  const bool t5 = is_encoder_decoder(arguments);
  config.set("model_type", t5 ? "megatron_t5" : "megatron_gpt");
  if (t5) config.set("decoder-num-layers", arguments.value("decoder-num-layers"));
  config.set("num-layers", layers);
  for (const char* name : kModelArguments) config.set(name, arguments.value(name));
  config.set("bias-activation-fusion", fuses_activation(arguments));
  config.set("bias-dropout-fusion", arguments.flag("bias-dropout-fusion"));
  const std::string pattern = hybrid_pattern(arguments);
  config.set("hybrid-layer-pattern", pattern.empty() ? facts::Value{} : facts::Value{pattern});
  config.set("tensor-model-parallel-size", tensor);
  config.set("num-query-groups",
             arguments.flag("group-query-attention") ? arguments.whole("num-query-groups") : heads);
  config.set("kv-channels", arguments.optional_whole("kv-channels")
                                .value_or(heads > 0 ? hidden / heads : std::int64_t{0}));
  config.set("ffn-hidden-size",
             arguments.optional_whole("ffn-hidden-size").value_or(default_ffn(arguments, hidden)));
  return config;
}

}  // namespace steelyard::exchange
