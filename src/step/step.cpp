#include "step/step.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "step/adapters.h"
#include "step/assembler.h"
#include "step/attention_backend.h"
#include "step/companion_passes.h"
#include "step/companions.h"
#include "step/offload_rules.h"
#include "step/recomputed_modules.h"
#include "step/split_graph.h"

namespace steelyard::step {

namespace {

Error not_yet(std::string key, std::string found, std::string accepted) {
  return {ErrorCode::not_supported,
          std::move(key),
          std::move(found),
          std::move(accepted),
          "this key is understood, but its effect is not built in this version",
          "",
          {}};
}

Error misfit(std::string key, std::string found, std::string accepted, std::string hint) {
  return {ErrorCode::bad_input,
          std::move(key),
          std::move(found),
          std::move(accepted),
          std::move(hint),
          "",
          {}};
}

// Keys of a training method given without it would change nothing, and a person who writes them
// expects something.
Result<void> check_method(const facts::TrainKeys& train) {
  using facts::BaseQuantization;
  using facts::Method;
  const std::string method(name_of(train.method));
  const facts::LoraKeys none;  // its defaults may be written out: `explain` does
  const bool adapters = train.lora.rank != none.rank || train.lora.dropout > 0.0 ||
                        !train.lora.targets.empty() || !train.lora.trainable.empty();
  if (train.method == Method::full && adapters) {
    return fail(misfit("train.lora", "a value", "no value: train.method is full",
                       "set train.method to lora or qlora"));
  }
  const bool quantized = train.base_quantization != BaseQuantization::none;
  if (quantized && train.method != Method::qlora) {
    return fail(misfit("train.base_quantization", std::string(name_of(train.base_quantization)),
                       "none: train.method is " + method, "set train.method to qlora"));
  }
  if (!quantized && train.method == Method::qlora) {
    return fail(misfit("train.base_quantization", "none", "nf4, nf4-dq, fp4, int8 or gptq-int4",
                       "say how the frozen base is held"));
  }
  if (train.unquantized && train.method != Method::qlora) {
    return fail(misfit("train.unquantized", std::string(name_of(*train.unquantized)),
                       "no value: train.method is " + method, "set train.method to qlora"));
  }
  if (train.lora.rank < 1) {
    return fail(misfit("train.lora.rank", std::to_string(train.lora.rank), "1 or more", ""));
  }
  return {};
}

bool has_experts(const model::Graph& graph) {
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Operator& op : block.operators) {
        if (op.mixture.experts > 0) return true;
      }
    }
  }
  return false;
}

// train.fused_kernels = ["moe"] (ScatterMoE, MegaBlocks): experts' products are one kernel.
bool fuses_experts(const facts::TrainKeys& train) {
  return std::find(train.fused_kernels.begin(), train.fused_kernels.end(),
                   facts::FusedKernel::moe) != train.fused_kernels.end();
}

Result<void> check_fused_experts(const model::Graph& graph, const facts::TrainKeys& train) {
  if (!fuses_experts(train) || has_experts(graph)) return {};
  return fail(misfit("train.fused_kernels", "moe",
                     "rmsnorm, rope, swiglu, cross_entropy, lora: the model has no experts", ""));
}

// Keys of training methods and layouts that are refused themselves: given alone they would change
// nothing, and a person who writes them expects something.
Result<void> check_idle_keys(const facts::Job& job) {
  const facts::ParallelKeys& parallel = job.parallel;
  if (parallel.async_tensor && parallel.tensor == 1) {
    return fail(not_yet("parallel.async_tensor", "true", "false where parallel.tensor is 1"));
  }
  const bool divides_gradients =
      parallel.sharding == facts::Sharding::zero2 || parallel.sharding == facts::Sharding::zero3;
  if (divides_gradients && parallel.pipeline > 1) {  // deepspeed/runtime/pipe/engine.py, __init__
    return fail(misfit("parallel.sharding", std::string(facts::name_of(parallel.sharding)),
                       "none or zero1: parallel.pipeline is " + std::to_string(parallel.pipeline),
                       "gradients of several micro-batches are in flight: ZeRO-2 and ZeRO-3 cannot "
                       "divide them"));
  }
  if (parallel.schedule == facts::Schedule::dualpipe) {
    return fail(not_yet("parallel.schedule", std::string(facts::name_of(parallel.schedule)),
                        "1f1b, interleaved, gpipe or zero-bubble"));
  }
  return {};
}

// Of encoder-decoders alone.
Result<void> check_decoder(const model::Graph& graph, const facts::TrainKeys& train) {
  if (!train.decoder_sequence_length || graph.decoder_sequence > 0) return {};
  return fail(misfit("train.decoder_sequence_length",
                     std::to_string(*train.decoder_sequence_length),
                     "no value: " + graph.model_type + " is no encoder-decoder",
                     "train.sequence_length says how long a sample is"));
}

// Pictures may lie in memory as channels_last: the same bytes. A network that is one block has no
// layers that could be computed again, only modules.
Result<void> check_pictures(const model::Graph& graph, const facts::TrainKeys& train,
                            const facts::FrameworkProfile& profile) {
  if (train.memory_format != facts::MemoryFormat::contiguous && graph.image_height == 0) {
    return fail(not_yet("train.memory_format", std::string(facts::name_of(train.memory_format)),
                        "contiguous: " + graph.model_type + " reads text"));
  }
  if (graph.segments.size() == 1 && train.recompute.mode != facts::RecomputeMode::none) {
    facts::RecomputeKeys full;
    full.mode = facts::RecomputeMode::full;
    const model::Block& whole = graph.segments.front().blocks.front();
    const bool has_modules = !recomputed_parts(whole, checkpointed_modules(profile, full)).empty();
    if (has_modules && !checkpointed_modules(profile, train.recompute).empty()) return {};
    return fail(not_yet("train.recompute", std::string(facts::name_of(train.recompute.mode)),
                        (has_modules ? "none or full: " : "none: ") + graph.model_type +
                            " is planned as one block"));
  }
  return {};
}

// Encoders and autoencoders are written down as what they hold and multiply, to stand beside a
// model: their operators do not feed one another.
bool is_a_listing(const model::Graph& graph) {
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      std::set<std::int32_t> made = {block.input.shared ? -1 : block.input.index};
      for (const model::Operator& op : block.operators) {
        for (const model::TensorRef ref : op.inputs) {
          if (!ref.shared && ref.index >= 0 && !made.contains(ref.index)) return true;
        }
        for (const model::TensorRef ref : op.outputs) {
          if (!ref.shared) made.insert(ref.index);
        }
      }
    }
  }
  return false;
}

// Imports are turned into keys before a job comes here (exchange/exchange.h).
Result<void> check_import(const facts::Job& job) {
  const facts::ImportKeys& import = job.import;
  const auto absent = [](const char* key, const std::optional<facts::Value>& value) {
    return value ? Result<void>(fail(not_yet(key, "a value", "the job's own keys")))
                 : Result<void>();
  };
  if (!job.megatron) STEELYARD_CHECK(absent("import.megatron", import.megatron));
  STEELYARD_CHECK(absent("import.deepspeed", import.deepspeed));
  STEELYARD_CHECK(absent("import.accelerate", import.accelerate));
  STEELYARD_CHECK(absent("import.torchtitan", import.torchtitan));
  return {};
}

// Partial results can be merged only with their softmax statistics.
Result<void> check_context(const facts::Job& job) {
  if (job.parallel.context == 1 || !facts::writes_scores(job.train.attention)) return {};
  return fail(misfit(
      "train.attention", std::string(facts::name_of(job.train.attention)),
      "flash, efficient or cudnn: parallel.context is " + std::to_string(job.parallel.context),
      "context parallelism merges what fused kernels give for parts of the keys"));
}

// Gradients that are applied and freed in backward, one by one.
Result<void> check_in_backward(const facts::Job& job) {
  if (!job.train.optimizer.in_backward) return {};
  if (job.train.gradient_accumulation.value_or(1) > 1) {
    return fail(misfit("train.optimizer.in_backward", "true",
                       "false: train.gradient_accumulation is above 1",
                       "gradients that are applied at once cannot be summed over micro-batches"));
  }
  const facts::Sharding sharding = job.parallel.sharding;
  if (sharding == facts::Sharding::zero1 || sharding == facts::Sharding::zero2 ||
      sharding == facts::Sharding::zero3) {
    return fail(misfit("train.optimizer.in_backward", "true",
                       "false: parallel.sharding is " + std::string(facts::name_of(sharding)),
                       "DeepSpeed steps its partitions when all gradients are reduced"));
  }
  return {};
}

// Of encoders and of networks that read pictures.
bool beyond_decoders(model::OperatorKind kind) {
  using model::OperatorKind;
  switch (kind) {
    case OperatorKind::padding_mask:
    case OperatorKind::view:
    case OperatorKind::contiguous:
    case OperatorKind::first_token:
    case OperatorKind::class_token:
    case OperatorKind::add_weight:
    case OperatorKind::conv:
    case OperatorKind::batch_norm:
    case OperatorKind::group_norm:
    case OperatorKind::max_pool:
    case OperatorKind::average_pool:
    case OperatorKind::multiply:
    case OperatorKind::multiply_weight:
    case OperatorKind::drop_path:
    case OperatorKind::roll:
    case OperatorKind::pad:
    case OperatorKind::match_boxes:
    case OperatorKind::window_bias:
    case OperatorKind::global_average_pool:
    case OperatorKind::upsample:
    case OperatorKind::concatenate:
    case OperatorKind::embedding_tables:
    case OperatorKind::relative_bias:
    case OperatorKind::add_buffer:
    case OperatorKind::recurrent_attention:
    case OperatorKind::disentangled_attention:
    case OperatorKind::timestep_embedding:
    case OperatorKind::merge_pictures:
    case OperatorKind::rotary_sections:
    case OperatorKind::unit_length:
    case OperatorKind::probe_attention:
    case OperatorKind::modulate:
    case OperatorKind::add_parts: return true;
    // Of the ends of decoders that are compared, judged or sampled from.
    case OperatorKind::alignment_loss:
    case OperatorKind::slice:
    case OperatorKind::softmax: return false;
    default:
      if (kind >= OperatorKind::parameter && kind <= OperatorKind::outputs_loss) return true;
      return model::is_loss(kind) && kind != OperatorKind::causal_lm_loss;
  }
}

// A kernel that also holds a projection of the mixer works on all of its channels and tokens; the
// delta rule is not built for a part of them.
bool holds_projections(const model::Operator& op, const model::Block& block) {
  if (op.kind == model::OperatorKind::delta_rule) return true;
  if (op.kind != model::OperatorKind::state_scan &&
      op.kind != model::OperatorKind::selective_scan) {
    return false;
  }
  return std::any_of(op.weights.begin(), op.weights.end(), [&block](std::int32_t weight) {
    return block.weights[static_cast<std::size_t>(weight)].role == model::WeightRole::matrix;
  });
}

// Splitting a layer over ranks, or the layers over stages, is built for decoders.
Result<void> check_split(const model::Graph& graph, const facts::ParallelKeys& parallel) {
  bool other = false;
  bool whole_mixers = false;
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Operator& op : block.operators) {
        other |= beyond_decoders(op.kind);
        whole_mixers |= holds_projections(op, block);
      }
    }
  }
  const auto refuse = [&](const char* key, std::int64_t value) -> Result<void> {
    if (value == 1) return {};
    return fail(not_yet(key, std::to_string(value), "1 for " + graph.model_type));
  };
  // A decoder reads the encoder's states in every layer; a stage behind it would not have them.
  const bool two_stacks = graph.decoder_sequence > 0;
  if (!other && !whole_mixers && !two_stacks) return {};
  if (other || whole_mixers) STEELYARD_CHECK(refuse("parallel.tensor", parallel.tensor));
  if (other || two_stacks) {
    STEELYARD_CHECK(refuse("parallel.pipeline", parallel.pipeline));
    STEELYARD_CHECK(refuse("parallel.virtual_stages", parallel.virtual_stages));
  }
  return refuse("parallel.context", parallel.context);
}

Result<void> check_interleaving(const facts::Job& job) {
  const facts::ParallelKeys& parallel = job.parallel;
  const std::int64_t given = job.megatron ? job.megatron->micro_batch_group : 0;
  const std::int64_t group = given > 0 ? given : parallel.pipeline;
  const std::int64_t batches = job.train.gradient_accumulation.value_or(1);
  if (fills_groups(parallel, batches, given)) return {};
  Error error;
  error.code = ErrorCode::impossible_combination;
  error.subject = "parallel.virtual_stages";
  error.found = std::to_string(parallel.virtual_stages) + " with " + std::to_string(batches) +
                " micro-batches in a step";
  error.accepted = "a multiple of " + std::to_string(group) +
                   " micro-batches: so many pass a chunk before the next one's turn";
  error.hint = "change train.global_batch or train.micro_batch, or leave virtual stages out";
  return fail(std::move(error));
}

Result<void> check(const model::Graph& graph, const facts::Job& job,
                   const facts::FrameworkProfile& profile) {
  if (!profile.supported) {
    return fail(not_yet("framework", profile.name,
                        "pytorch, transformers, deepspeed or another supported framework"));
  }
  if (is_a_listing(graph)) {
    return fail(misfit("model.config", graph.model_type, "a model that trains by itself",
                       "this one stands beside others: name it in model.companions"));
  }
  STEELYARD_CHECK(check_import(job));
  STEELYARD_CHECK(check_method(job.train));
  STEELYARD_CHECK(check_fused_experts(graph, job.train));
  STEELYARD_CHECK(check_decoder(graph, job.train));
  STEELYARD_CHECK(check_pictures(graph, job.train, profile));
  STEELYARD_CHECK(check_context(job));
  STEELYARD_CHECK(check_in_backward(job));
  STEELYARD_CHECK(check_split(graph, job.parallel));
  STEELYARD_CHECK(check_interleaving(job));
  STEELYARD_CHECK(check_offload(job));
  STEELYARD_CHECK(check_idle_keys(job));
  return {};
}

// What the fullest of the expert-parallel ranks can get at most, over an even share: every token
// chooses k of the E experts, and the rank holds E / e of them.
double most_imbalance(const model::Graph& graph, const facts::ParallelKeys& parallel) {
  double most = 1.0;
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Operator& op : block.operators) {
        if (op.mixture.experts == 0 || op.mixture.chosen == 0) continue;
        const auto ranks = static_cast<double>(parallel.expert);
        const auto chosen = static_cast<double>(op.mixture.chosen);
        const double held = static_cast<double>(op.mixture.experts) / ranks;
        most = std::max(most, ranks * std::min(chosen, held) / chosen);
      }
    }
  }
  return most;
}

Result<void> check_imbalance(const model::Graph& graph, const facts::ParallelKeys& parallel) {
  if (parallel.expert_imbalance <= 1.0) return {};
  const std::string stated = fmt::format("{}", parallel.expert_imbalance);
  if (parallel.expert_capacity != 1.0) {
    return fail(misfit("parallel.expert_imbalance", stated, "no value beside expert_capacity",
                       "every expert is padded to its capacity, whatever the router chose"));
  }
  const double most = most_imbalance(graph, parallel);
  if (parallel.expert_imbalance <= most) return {};
  return fail(misfit("parallel.expert_imbalance", stated,
                     fmt::format("at most {:.4g}: every token to the experts of one of {} ranks",
                                 most, parallel.expert),
                     most == 1.0 ? "a rank that holds all experts gets every token" : ""));
}

// What is stated of the experts' load counts where tokens are sent to them in rows.
Result<void> check_expert_load(const model::Graph& graph, const facts::ParallelKeys& parallel,
                               const Variants& variants) {
  const bool imbalanced = parallel.expert_imbalance > 1.0;
  if (!imbalanced && parallel.expert_capacity == 1.0) return {};
  const char* key = imbalanced ? "parallel.expert_imbalance" : "parallel.expert_capacity";
  const double stated = imbalanced ? parallel.expert_imbalance : parallel.expert_capacity;
  if (!has_experts(graph)) {
    return fail(misfit(key, fmt::format("{}", stated), "no value: the model has no experts", ""));
  }
  const bool dispatched =
      variants.experts == Experts::dispatched || parallel.expert > 1 || parallel.expert_tensor > 1;
  if (dispatched) return check_imbalance(graph, parallel);
  return fail(misfit(key, fmt::format("{}", stated),
                     "no value: this framework runs one expert after the other",
                     "set parallel.expert, or framework = \"megatron\" or \"torchtitan\""));
}

// What an import says of the operators counts more than the framework's habits.
facts::FrameworkProfile with_words(facts::FrameworkProfile profile, const facts::Job& job) {
  if (fuses_experts(job.train)) profile.operators["experts"] = "dispatched";
  if (job.train.use_reentrant) {
    std::string& word = profile.operators["checkpoint"];
    if (*job.train.use_reentrant || word == "reentrant" || word.empty()) {
      word = *job.train.use_reentrant ? "reentrant" : "early_stop";
    }
  }
  if (!job.megatron) return profile;
  for (const auto& [composite, word] : job.megatron->operators) profile.operators[composite] = word;
  const bool keeps_shards = profile.operators["gradient_shards"] == "kept";
  if (keeps_shards) profile.gradients_set_to_none = false;
  if (job.megatron->gradient_buffer) {
    profile.gradients_set_to_none = false;
    profile.ddp_gradient_as_bucket_view = true;
  }
  return profile;
}

std::string kind_of(const Stage& stage, const facts::ParallelKeys& parallel) {
  if (parallel.pipeline == 1)
    return parallel.tensor > 1 ? "tensor-parallel rank" : "data-parallel rank";
  return "pipeline stage " + std::to_string(stage.index + 1) + " of " +
         std::to_string(parallel.pipeline);
}

// Frozen companions are made beside the model, in fp32, and moved later (diffusers:
// train_text_to_image.py, from_pretrained of all parts before the first .to(accelerator.device)).
// Those that stay on the CPU are cast there: what they keep is counted apart.
void hold_companions(const std::vector<Companion>& companions, facts::DType products,
                     StateSizes& states) {
  for (const Companion& companion : companions) {
    if (companion.trainable) continue;  // among the model's own weights
    const Bytes made(checked_multiply(model::parameter_count(companion.graph).value(),
                                      facts::bytes_of(facts::DType::fp32)));
    if (companion.held != facts::CompanionHeld::cpu) {
      states.made_bytes += made;
      continue;
    }
    const HeldOnHost held = held_on_host(companion, products);
    states.made_bytes += made - held.weights;
    states.companion_host_bytes += held.weights;
    states.companion_host_work = std::max(states.companion_host_work, held.work);
  }
}

}  // namespace

Result<std::vector<RankProgram>> programs_of(const model::Graph& graph, const facts::Job& given_job,
                                             const facts::FrameworkProfile& given_profile,
                                             const facts::Gpu& gpu,
                                             std::vector<Companion> companions,
                                             const ModelUse& use) {
  STEELYARD_CHECK(check(graph, given_job, given_profile));
  if (given_job.model.companions.size() > companions.size()) {
    return fail(not_yet("model.companions", "models that were not read", "each with its graph"));
  }
  STEELYARD_CHECK(check_companions(companions));
  facts::Job job = given_job;
  job.train.compile |= given_profile.always_compiled;
  if (use.adapters_off) std::erase(job.train.fused_kernels, facts::FusedKernel::lora);
  const facts::FrameworkProfile profile = with_words(given_profile, job);
  STEELYARD_TRY(habits, adapter_habits_of(profile, graph.library));
  STEELYARD_TRY(fp8, fp8_of(job, profile, gpu));
  STEELYARD_TRY(layout, layout_of(job, habits, fp8));
  if (gpu.memory) layout.card = *gpu.memory;
  if (job.train.method == facts::Method::full) STEELYARD_CHECK(check_stages(graph, job));
  STEELYARD_TRY(variants, variants_of(profile, job.train, job.parallel));
  STEELYARD_TRY(copies, engine_copies_of(profile, job, gpu));
  variants.engine_copies = copies;
  if (variants.functional_lamb) make_functional(job.train.optimizer, layout.optimizer);
  if (variants.foreach_denominator) hold_denominator(job.train.optimizer, layout.optimizer);
  const facts::ParallelKeys& parallel = job.parallel;
  STEELYARD_CHECK(check_expert_load(graph, parallel, variants));
  STEELYARD_TRY(split, split_graph(graph, job, profile, habits, fp8, companions, use));
  STEELYARD_TRY(
      stages,
      stages_of(split->local, parallel,
                job.megatron ? job.megatron->chunk_layers : std::vector<std::int64_t>(), use.once));
  StateSizes states = Assembler(split->whole, job, profile, variants, layout, habits).states();
  states.embedding_host_bytes = host_tables(split->held.graph, layout);
  // A rank makes and loads the tables that it holds, not those of the others.
  const StateSizes own = Assembler(split->held, job, profile, variants, layout, habits).states();
  states.made_bytes = own.parameter_bytes;
  hold_companions(companions, layout.arithmetic.compute, states);
  states.largest_block_bytes = own.largest_block_bytes;
  std::vector<RankProgram> programs;
  for (const Stage& stage : stages) {
    if (use.once && stage.like != programs.size()) {
      programs.push_back({kind_of(stage, parallel), programs[stage.like].ranks, {}, stage.like});
      continue;
    }
    Assembler assembler(stage, job, profile, variants, layout, habits);
    assembler.bring(companions);
    if (use.asks_only) assembler.ask_only();
    assembler.work_in(use.workshop);
    if (use.once) assembler.tell_times_only();
    Program program = assembler.assemble();
    program.states = states;
    if (stage.index == 0) add_companion_passes(companions, layout.arithmetic.compute, program);
    programs.push_back({kind_of(stage, parallel), program.ranks, std::move(program), stage.like});
  }
  return programs;
}

}  // namespace steelyard::step
