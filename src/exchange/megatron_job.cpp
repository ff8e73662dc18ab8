// Megatron-LM's arguments as keys of a job.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <utility>

#include "exchange/exchange.h"
#include "exchange/megatron_arguments.h"
#include "exchange/megatron_model.h"
#include "exchange/megatron_overlap.h"
#include "exchange/megatron_sharding.h"
#include "exchange/megatron_words.h"
#include "exchange/pipeline_layout.h"

namespace steelyard::exchange {
namespace {

using facts::DType;

constexpr std::int64_t kGroupedStreams = 4;  // of Transformer Engine's grouped products
constexpr std::int64_t kOverlapStreams = 3;  // of its products beside user buffers

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

Error not_built(const char* name, std::string found, std::string accepted) {
  return wrong(ErrorCode::not_supported, name, std::move(found), std::move(accepted),
               "it is known, but what it does is not planned yet");
}

class Importer {
 public:
  Importer(const MegatronArguments& arguments, facts::Job job)
      : arguments_(arguments), job_(std::move(job)) {}

  Result<facts::Job> run();

 private:
  [[nodiscard]] bool own(std::string_view key) const {
    const auto found = job_.origins.find(key);
    return found != job_.origins.end() && found->second.origin == facts::Origin::job;
  }
  // The job's own key counts more than the import.
  template <class T, class V>
  void set(const char* key, T& field, V value) {
    if (own(key)) return;
    field = std::move(value);
    job_.origins[key] = {facts::Origin::import, {}};
  }

  Result<void> set_batch();
  Result<void> set_precision();
  Result<void> set_optimizer();
  Result<void> set_recompute();
  Result<void> set_attention();
  void set_experts();
  Result<void> set_parallel();
  Result<void> set_context();
  [[nodiscard]] Result<std::int64_t> layers_to_split() const;
  Result<void> set_pipeline();
  Result<void> set_shards();
  void set_overlap();
  Result<void> set_states();
  void set_checkpoint();
  Result<DType> state_type(const char* name) const;

  const MegatronArguments& arguments_;
  facts::Job job_;
  facts::MegatronKeys keys_;
};

Result<void> Importer::set_batch() {
  const auto micro = arguments_.optional_whole("micro-batch-size");
  if (!micro && !own("train.micro_batch")) {
    return fail(wrong(ErrorCode::missing_value, "micro-batch-size", "no such argument",
                      "a whole number: Megatron-LM has no default for it"));
  }
  if (micro) set("train.micro_batch", job_.train.micro_batch, *micro);
  const auto global = arguments_.optional_whole("global-batch-size");
  if (global && !own("train.gradient_accumulation")) {
    set("train.global_batch", job_.train.global_batch, *global);
  }
  auto length = arguments_.optional_whole("seq-length");
  if (!length) length = arguments_.optional_whole("encoder-seq-length");
  if (!length && !own("train.sequence_length")) {
    return fail(wrong(ErrorCode::missing_value, "seq-length", "no such argument",
                      "a whole number: Megatron-LM has no default for it"));
  }
  if (length) set("train.sequence_length", job_.train.sequence_length, *length);
  if (const auto decoder = arguments_.optional_whole("decoder-seq-length")) {
    set("train.decoder_sequence_length", job_.train.decoder_sequence_length, *decoder);
  }
  set("train.gradient_clipping", job_.train.gradient_clipping, arguments_.real("clip-grad") > 0.0);
  set("data.workers", job_.data.workers, arguments_.whole("num-workers"));
  return {};
}

Result<void> Importer::set_precision() {
  using facts::Precision;
  const bool bf16 = arguments_.flag("bf16");
  const bool fp16 = arguments_.flag("fp16");
  if (bf16 && fp16) {
    return fail(wrong(ErrorCode::impossible_combination, "bf16", "bf16 and fp16", "one of them"));
  }
  Precision precision = bf16 ? Precision::bf16 : (fp16 ? Precision::fp16 : Precision::fp32);
  if (!arguments_.text("fp8-format").empty()) {
    const std::string recipe = arguments_.text("fp8-recipe");
    precision = recipe == "mxfp8" ? Precision::mxfp8_mixed : Precision::fp8_mixed;
    facts::Fp8Keys keys;
    keys.all_gather = arguments_.flag("fp8-param-gather");
    const auto known = facts::from_name<facts::Fp8Recipe>(recipe);
    if (!known && recipe != "mxfp8") {
      return fail(wrong(ErrorCode::bad_input, "fp8-recipe", recipe,
                        "tensorwise, delayed, mxfp8 or blockwise"));
    }
    keys.recipe = known.value_or(facts::Fp8Recipe::delayed);
    set("train.fp8", job_.train.fp8, keys);
  }
  if (!arguments_.text("fp4-format").empty()) {
    if (arguments_.text("fp4-recipe") != "nvfp4") {
      return fail(not_built("fp4-recipe", arguments_.text("fp4-recipe"), "nvfp4"));
    }
    precision = Precision::nvfp4_mixed;
  }
  // fp8_utils.py, is_first_last_bf16_layer.
  if (arguments_.flag("first-last-layers-bf16")) {
    for (const auto& [word, name] : {std::pair{"wide_first_layers", "num-layers-at-start-in-bf16"},
                                     std::pair{"wide_last_layers", "num-layers-at-end-in-bf16"}}) {
      keys_.operators[word] = std::to_string(arguments_.whole(name));
    }
  }
  set("train.precision", job_.train.precision, precision);
  return {};
}

Result<void> Importer::set_optimizer() {
  const std::string name = arguments_.text("optimizer");
  const bool has_momentum = name == "sgd";
  // "adam" decouples the weight decay (apex's and Transformer Engine's FusedAdam).
  const auto known = facts::from_name<facts::OptimizerName>(
      name == "adam" ? "adamw" : (has_momentum ? "sgd-momentum" : name));
  if (!known) return fail(not_built("optimizer", name, "adam, sgd, lion or muon"));
  facts::OptimizerKeys& optimizer = job_.train.optimizer;
  set("train.optimizer.name", optimizer.name, *known);
  set("train.optimizer.fused", optimizer.fused, true);
  set("train.optimizer.foreach", optimizer.foreach, false);
  const bool is_short = job_.train.precision != facts::Precision::fp32;
  set("train.optimizer.master_weights", optimizer.master_weights, is_short);
  set("train.optimizer.state_precision", optimizer.state_precision, facts::ShortPrecision::fp32);
  return {};
}

Result<void> Importer::set_recompute() {
  if (own("train.recompute")) return {};
  const std::string granularity = arguments_.text("recompute-granularity");
  if (granularity.empty()) return {};
  facts::RecomputeKeys recompute;
  if (granularity == "selective") {
    std::vector<std::string> modules = arguments_.list("recompute-modules");
    if (modules.empty()) modules = {"core_attn"};
    const bool core = std::find(modules.begin(), modules.end(), "core_attn") != modules.end();
    if (core) recompute.mode = facts::RecomputeMode::selective;
    std::erase(modules, "core_attn");
    keys_.recomputed_modules = std::move(modules);
  } else if (granularity == "full") {
    recompute.mode = facts::RecomputeMode::full;
    const std::string method = arguments_.text("recompute-method");
    const std::int64_t layers = arguments_.optional_whole("recompute-num-layers").value_or(1);
    const auto known = facts::from_name<facts::RecomputeMethod>(method);
    if (!known) {
      return fail(wrong(ErrorCode::bad_input, "recompute-method",
                        method.empty() ? "no such argument" : method, "uniform or block"));
    }
    if (*known == facts::RecomputeMethod::block || layers > 1) {
      recompute.method = *known;
      recompute.layers = layers;
    }
  } else {
    return fail(
        wrong(ErrorCode::bad_input, "recompute-granularity", granularity, "full or selective"));
  }
  set("train.recompute", job_.train.recompute, recompute);
  return {};
}

// transformer/moe/experts.py (bias_act_func) and moe_utils.py (unpermute).
void Importer::set_experts() {
  if (!arguments_.optional_whole("num-experts")) return;
  const bool fuses = fuses_activation(arguments_);
  const bool swiglu = arguments_.flag("swiglu") && fuses;
  const bool geglu = arguments_.flag("quick-geglu") && fuses;
  const bool relu =
      arguments_.flag("squared-relu") && arguments_.flag("use-fused-weighted-squared-relu");
  keys_.operators["expert_activation"] = swiglu || geglu || relu ? "fused" : "separate";
  if (arguments_.flag("deterministic-mode") && !arguments_.flag("moe-permute-fusion")) {
    keys_.operators["unpermute"] = "index_add";
  }
  // TEGroupedMLP._apply_bias, of the second product; the first one's goes into it.
  if (arguments_.flag("add-bias-linear")) keys_.operators["expert_bias"] = "added";
  // moe_utils.py, topk_router_with capacity and permute(drop_and_pad): every expert gets as many
  // rows; without padding an even load loses none.
  const double capacity = arguments_.real("moe-expert-capacity-factor");  // 0: not given
  if (capacity > 0.0 && arguments_.flag("moe-pad-expert-input-to-capacity")) {
    set("parallel.expert_capacity", job_.parallel.expert_capacity, capacity);
  }
  // general_grouped_gemm: a product of cuBLAS for each expert.
  if (arguments_.text("transformer-impl") != "local") {
    keys_.operators["grouped_products"] = "one_kernel_each";
  }
  const std::string dispatcher = arguments_.text("moe-token-dispatcher-type");
  if (dispatcher == "allgather") keys_.operators["gathered_tokens"] = "global_buffer";
  if (dispatcher == "flex") keys_.operators["exchanges"] = "by_rank";
  if (arguments_.flag("overlap-moe-expert-parallel-comm")) {
    keys_.operators["exchange_time"] = "beside_other_pass";
  }
  if (arguments_.flag("use-transformer-engine-op-fuser")) {
    keys_.operators["expert_mlp"] = "fused_products";
    keys_.operators["grouped_products"] = "one_kernel";
  }
}

Result<void> Importer::set_attention() {
  const bool local = arguments_.text("transformer-impl") == "local";
  const bool legacy = runs_legacy_layers(arguments_);
  // ParallelAttention: with --use-flash-attn its own FlashSelfAttention, on keys of every head.
  const bool own_flash = legacy && arguments_.text("attention-backend") == "flash";
  const std::string backend = local && !own_flash ? "local" : arguments_.text("attention-backend");
  if (legacy) keys_.operators["key_value_repeat"] = "repeat";
  if (backend == "flash") keys_.operators["attention_backend"] = "engine_flash";
  facts::Attention attention = facts::Attention::flash;
  if (backend == "unfused" || backend == "local") {
    attention = facts::Attention::math;
  } else if (backend == "fused") {
    attention = facts::Attention::cudnn;
  } else if (backend != "flash" && backend != "auto") {
    return fail(wrong(ErrorCode::bad_input, "attention-backend", backend,
                      "flash, fused, unfused, local or auto"));
  }
  set("train.attention", job_.train.attention, attention);
  if (arguments_.flag("cross-entropy-loss-fusion")) {
    const bool engine = arguments_.text("cross-entropy-fusion-impl") == "te";
    keys_.operators["loss"] = engine ? "in_place" : "vocab_parallel_compiled";
  }
  set_experts();
  // transformer_config.py: one kernel knows YaRN's tables only, latent attention's own default.
  const bool yarn = arguments_.text("rope-type").empty() || arguments_.text("rope-type") == "yarn";
  const bool rope = arguments_.flag("apply-rope-fusion");
  keys_.operators["latent_rotary"] = rope && yarn ? "fused" : "separate";
  // rope_utils.py, _apply_rotary_pos_emb_bshd
  if (!rope || legacy) keys_.operators["rotary"] = "joined";
  if (local) {
    keys_.operators["attention_backend"] = "torch";
    // tensor_parallel/layers.py and transformer/dot_product_attention.py instead of TE's modules. A
    // mixture's router is TE's all the same (moe/moe_utils.py, RouterGatingLinearFunction).
    const bool router = arguments_.optional_whole("num-experts").has_value();
    keys_.operators["gemm"] = router ? "own_workspace" : "library_workspace";
    keys_.operators["attention_scores"] = "global_buffer";
    if (!arguments_.flag("masked-softmax-fusion")) {
      keys_.operators["math_attention"] = "wide_softmax";
    }
  }
  return {};
}

Result<void> Importer::set_parallel() {
  facts::ParallelKeys& parallel = job_.parallel;
  set("parallel.tensor", parallel.tensor, arguments_.whole("tensor-model-parallel-size"));
  set("parallel.context", parallel.context, arguments_.whole("context-parallel-size"));
  set("parallel.expert", parallel.expert, arguments_.whole("expert-model-parallel-size"));
  const bool experts = arguments_.optional_whole("num-experts").has_value();
  set("parallel.expert_tensor", parallel.expert_tensor,
      experts ? arguments_.optional_whole("expert-tensor-parallel-size")
                    .value_or(
                        expert_tensor_ranks(job_, arguments_.whole("pipeline-model-parallel-size")))
              : 1);
  // Without tensor parallelism Megatron-LM turns it off.
  set("parallel.sequence_parallel", parallel.sequence_parallel,
      arguments_.flag("sequence-parallel") && parallel.tensor > 1);
  set("parallel.async_tensor", parallel.async_tensor, false);  // set_overlap
  return set_context();
}

// One method for all layers: what a list says of single ones is not played.
Result<void> Importer::set_context() {
  facts::ParallelKeys& parallel = job_.parallel;
  if (parallel.context > 1 && !own("parallel.context_method")) {
    const std::vector<std::string> methods = arguments_.list("cp-comm-type");
    const std::string& method = methods.front();
    const bool alike =
        std::all_of(methods.begin(), methods.end(), [&](const auto& m) { return m == method; });
    if (!alike || (method != "p2p" && method != "all_gather")) {
      return fail(not_built("cp-comm-type", fmt::format("{}", fmt::join(methods, " ")),
                            "p2p or all_gather, the same for all layers"));
    }
    set("parallel.context_method", parallel.context_method,
        std::optional<facts::ContextMethod>(method == "p2p" ? facts::ContextMethod::ring
                                                            : facts::ContextMethod::all_gather));
  }
  return set_pipeline();
}

// The arguments', unless the job changes the model.
Result<std::int64_t> Importer::layers_to_split() const {
  const facts::Value* changed = job_.model.set.find("num-layers");
  const std::int64_t* count = changed != nullptr ? changed->as_whole() : nullptr;
  if (count != nullptr) return *count;
  return layers_of(arguments_);
}

Result<void> Importer::set_pipeline() {
  facts::ParallelKeys& parallel = job_.parallel;
  if (own("parallel.stage_layers")) {  // the job's own split: Megatron-DeepSpeed divides unevenly
    set("parallel.pipeline", parallel.pipeline, arguments_.whole("pipeline-model-parallel-size"));
    return {};
  }
  STEELYARD_TRY(layers, layers_to_split());
  PipelineSizes sizes;
  if (own("parallel.pipeline")) sizes.stages = parallel.pipeline;
  if (own("parallel.virtual_stages")) sizes.chunks = parallel.virtual_stages;
  STEELYARD_TRY(layout, pipeline_layout(arguments_, layers, sizes));
  set("parallel.pipeline", parallel.pipeline, layout.stages);
  set("parallel.virtual_stages", parallel.virtual_stages, layout.chunks);
  set("parallel.schedule", parallel.schedule,
      layout.chunks > 1 ? facts::Schedule::interleaved : facts::Schedule::one_f_one_b);
  if (arguments_.flag("defer-embedding-wgrad-compute")) {
    keys_.deferred_head_gradients = arguments_.whole("wgrad-deferral-limit");
  }
  keys_.micro_batch_group =
      arguments_.optional_whole("microbatch-group-size-per-virtual-pipeline-stage").value_or(0);
  if (!layout.even()) {
    const std::vector<std::int64_t> each = layout.stage_layers();
    const bool same =
        std::adjacent_find(each.begin(), each.end(), std::not_equal_to<>()) == each.end();
    if (!same) set("parallel.stage_layers", parallel.stage_layers, each);
    if (layout.chunks > 1) keys_.chunk_layers = layout.layers;
  }
  return {};
}

Result<DType> Importer::state_type(const char* name) const {
  const std::string text = arguments_.text(name);
  if (text == "fp32") return DType::fp32;
  if (text == "bf16") return DType::bf16;
  if (text == "fp16") return DType::fp16;
  return fail(not_built(name, text, "fp32, bf16 or fp16"));
}

// Megatron-FSDP (param_and_grad_buffer.py, main_grad_buffer): shards of gradients are made once and
// zeroed after each step.
Result<void> Importer::set_shards() {
  const char* name = "data-parallel-sharding-strategy";
  const std::string strategy = arguments_.text(name);
  if (strategy != "optim_grads_params") {
    return fail(not_built(name, strategy, "optim_grads_params beside use-megatron-fsdp"));
  }
  set("parallel.sharding", job_.parallel.sharding, facts::Sharding::fsdp);
  keys_.operators["gradient_shards"] = "kept";
  return {};
}

void Importer::set_overlap() {
  const auto on = [this](std::string_view name) {
    return arguments_.flag(name) || std::ranges::count(keys_.assumed_switches, name) > 0;
  };
  keys_.overlaps_reduction = on("overlap-grad-reduce");
  if (on("overlap-param-gather")) keys_.operators["parameter_gathers"] = "beside_forward";
  if (!on("tp-comm-overlap")) return;
  set("parallel.async_tensor", job_.parallel.async_tensor, true);
  keys_.engine_workspaces += kOverlapStreams;
}

Result<void> Importer::set_states() {
  // Another engine (DeepSpeed in Megatron-DeepSpeed) holds the states when the job says how they
  // are sharded.
  const bool other_engine =
      own("parallel.sharding") && job_.parallel.sharding != facts::Sharding::none;
  const bool shards = arguments_.flag("use-megatron-fsdp") && !own("parallel.sharding");
  keys_.gradient_buffer = !other_engine && !shards;
  keys_.distributed_optimizer =
      arguments_.flag("use-distributed-optimizer") && !own("parallel.sharding") && !shards;
  if (shards) {
    STEELYARD_CHECK(set_shards());
  } else {
    set("parallel.sharding", job_.parallel.sharding,
        keys_.distributed_optimizer ? facts::Sharding::zero1 : facts::Sharding::none);
  }
  STEELYARD_TRY(gradients, state_type("main-grads-dtype"));
  STEELYARD_TRY(parameters, state_type("main-params-dtype"));
  STEELYARD_TRY(first, state_type("exp-avg-dtype"));
  STEELYARD_TRY(second, state_type("exp-avg-sq-dtype"));
  // bf16 implies fp32 accumulation unless --grad-reduce-in-bf16; fp16 does not.
  const bool bf16 = arguments_.flag("bf16");
  const bool wide = arguments_.flag("accumulate-allreduce-grads-in-fp32") ||
                    (bf16 && !arguments_.flag("grad-reduce-in-bf16") && gradients == DType::fp32);
  const DType own_type = bf16 ? DType::bf16 : (arguments_.flag("fp16") ? DType::fp16 : DType::fp32);
  keys_.main_gradients = wide ? DType::fp32 : own_type;
  if (shards && arguments_.text("megatron-fsdp-main-grads-dtype") != "auto") {
    STEELYARD_TRY(of_shards, state_type("megatron-fsdp-main-grads-dtype"));
    keys_.main_gradients = of_shards;
  }
  // Megatron-DeepSpeed's mask is one for all samples and passes through the stages.
  if (other_engine) keys_.operators["attention_mask"] = "none";
  keys_.wide_gradient_copy = other_engine && wide && own_type != DType::fp32;
  set("parallel.reduce_precision", job_.parallel.reduce_precision,
      keys_.main_gradients == DType::fp32   ? facts::ShortPrecision::fp32
      : keys_.main_gradients == DType::bf16 ? facts::ShortPrecision::bf16
                                            : facts::ShortPrecision::fp16);
  keys_.main_parameters = parameters;
  // optimizer_config.py, use_precision_aware_optimizer_no_fp8_or_ds_fp8: it asks for the recipe
  // whether or not anything is in fp8.
  if (arguments_.flag("use-precision-aware-optimizer") &&
      (parameters != DType::fp32 || arguments_.text("fp8-recipe") == "delayed")) {
    keys_.operators["master_weights"] = "engine";
  }
  keys_.first_moment = first;
  keys_.second_moment = second;
  keys_.bucket_elements = arguments_.optional_whole("ddp-bucket-size");
  keys_.pads_for_high_bandwidth = arguments_.flag("ddp-pad-buckets-for-high-nccl-busbw");
  keys_.assumed_switches = overlap_assumed_of(arguments_, job_, keys_);
  keys_.assumed_values = arguments_.assumed_values();
  set_overlap();
  keys_.optimizer_instances = arguments_.whole("num-distributed-optimizer-instances");
  if (arguments_.flag("moe-grouped-gemm")) keys_.engine_workspaces += kGroupedStreams;
  // megatron/training/determinism.py: ":4096:8", eight times 4096 KiB.
  if (arguments_.flag("deterministic-mode")) {
    keys_.library_workspace = Bytes(std::int64_t{8} * 4096 * 1024);
  }
  // Into buffers of any type (tensor_parallel/layers.py: wgrad_gemm_accum_fp32 and _fp16).
  keys_.fused_weight_gradients = arguments_.flag("gradient-accumulation-fusion");
  if (!arguments_.flag("optimizer-cpu-offload")) return {};
  set("offload.optimizer", job_.offload.optimizer, facts::OffloadTo::cpu);
  set("offload.pin_memory", job_.offload.pin_memory, arguments_.flag("pin-cpu-grads"));
  return {};
}

// Every format writes each model-parallel rank's own part.
void Importer::set_checkpoint() {
  set("checkpoint.method", job_.checkpoint.method,
      arguments_.flag("async-save") ? facts::CheckpointMethod::sharded_async
                                    : facts::CheckpointMethod::sharded_sync);
  const auto every = arguments_.optional_whole("save-interval");
  if (every && *every > 0) set("checkpoint.every_steps", job_.checkpoint.every_steps, *every);
}

Result<facts::Job> Importer::run() {
  if (!own("framework")) {
    job_.framework = "megatron";
    job_.origins["framework"] = {facts::Origin::import, {}};
  }
  STEELYARD_CHECK(check_words(arguments_));
  keys_.operators = words_of(arguments_);
  STEELYARD_CHECK(set_batch());
  STEELYARD_CHECK(set_precision());
  STEELYARD_CHECK(set_optimizer());
  STEELYARD_CHECK(set_recompute());
  STEELYARD_CHECK(set_attention());
  STEELYARD_CHECK(set_parallel());
  STEELYARD_CHECK(set_states());
  set_checkpoint();
  STEELYARD_CHECK(add_graph_words(arguments_, keys_.operators));
  STEELYARD_CHECK(check_recomputed_modules(keys_.recomputed_modules));
  // A job that was imported before, and changed since, gets its model anew.
  const auto model = job_.origins.find("model.config");
  const bool imported =
      model != job_.origins.end() && model->second.origin == facts::Origin::import;
  if (imported || std::holds_alternative<std::monostate>(job_.model.config)) {
    STEELYARD_TRY(config, megatron_model(arguments_, job_.parallel.tensor));
    job_.model.config = std::move(config);
    job_.origins["model.config"] = {facts::Origin::import, {}};
  }
  job_.megatron = std::move(keys_);
  return std::move(job_);
}

}  // namespace

Result<facts::Job> imported(facts::Job job, const std::filesystem::path& folder,
                            const facts::Value& megatron_table) {
  if (!job.import.megatron) return job;
  STEELYARD_TRY(arguments, MegatronArguments::read(*job.import.megatron, folder, megatron_table,
                                                   job.versions));
  return Importer(arguments, std::move(job)).run();
}

}  // namespace steelyard::exchange
