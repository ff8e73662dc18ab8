#include "plan/resolve.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>
#include <utility>

#include "facts/host.h"
#include "model/model.h"
#include "plan/engine_states.h"
#include "plan/graphs.h"
#include "plan/objective.h"
#include "step/target_expressions.h"

namespace steelyard::plan {

namespace {

using facts::Job;
using facts::Origin;
using facts::Precision;
using facts::Sharding;
using facts::ShortPrecision;

// Loader processes per GPU: a token memmap needs hardly any work, decoding pictures does
// (facts/data-path.md F: 2-4 workers per GPU, 8 where images are decoded).
constexpr std::int64_t kTokenWorkers = 2;
constexpr std::int64_t kDecodeWorkers = 8;
constexpr std::int64_t kCheckpointSteps = 1000;
constexpr std::int64_t kSentence = 128;
// Token ids up to this vocabulary are stored in two bytes (nanoGPT's and Megatron's .bin files).
constexpr std::int64_t kTwoByteVocabulary = 65536;
// A sample of a waveform in a file: 16 bits, one channel. FLAC takes about half of it.
constexpr double kWaveBytes = 2.0;

template <class T>
void fill(Job& job, std::optional<T>& field, const char* key, T value, Origin origin) {
  if (field) return;
  field = std::move(value);
  job.origins[key] = {origin, {}};
}

Error impossible(std::string subject, std::string found, std::string accepted, std::string hint) {
  Error error;
  error.code = ErrorCode::impossible_combination;
  error.subject = std::move(subject);
  error.found = std::move(found);
  error.accepted = std::move(accepted);
  error.hint = std::move(hint);
  return error;
}

bool is_mixed(Precision precision) {
  switch (precision) {
    case Precision::bf16_mixed:
    case Precision::fp16_mixed:
    case Precision::fp8_mixed:
    case Precision::mxfp8_mixed:
    case Precision::nvfp4_mixed: return true;
    default: return false;
  }
}

bool is_zero(Sharding sharding) {
  return sharding == Sharding::zero1 || sharding == Sharding::zero2 || sharding == Sharding::zero3;
}

ShortPrecision own_type(Precision precision) {
  switch (precision) {
    case Precision::bf16:
    case Precision::fp8_mixed:
    case Precision::mxfp8_mixed:
    case Precision::nvfp4_mixed:
    case Precision::bf16_mixed: return ShortPrecision::bf16;
    case Precision::fp16:
    case Precision::fp16_mixed: return ShortPrecision::fp16;
    default: return ShortPrecision::fp32;
  }
}

Result<void> resolve_ranks(Job& job, const facts::Machine& machine) {
  fill(job, job.machine.gpus, "machine.gpus", machine.gpus, Origin::machine);
  const std::int64_t gpus = checked_multiply(job.machine.nodes, *job.machine.gpus);
  if (*job.machine.gpus > machine.gpus && machine.kind != "bare-gpu") {
    return fail(impossible("machine.gpus", std::to_string(*job.machine.gpus),
                           fmt::format("at most {}: what {} has", machine.gpus, machine.id),
                           "use more nodes: machine.nodes"));
  }
  if (machine.fabric_gpus) {
    fill(job, job.machine.fabric_gpus, "machine.fabric_gpus",
         std::max(*machine.fabric_gpus, *job.machine.gpus), Origin::machine);
  }
  const facts::ParallelKeys& p = job.parallel;
  const std::int64_t model_ranks =
      checked_multiply(checked_multiply(p.tensor, p.pipeline), p.context);
  if (gpus % model_ranks != 0) {
    return fail(impossible(
        "parallel",
        fmt::format("tensor {} x pipeline {} x context {}", p.tensor, p.pipeline, p.context),
        fmt::format("a product that divides the {} GPUs of machine.nodes x machine.gpus", gpus),
        ""));
  }
  fill(job, job.parallel.data, "parallel.data", gpus / model_ranks, Origin::fallback);
  if (checked_multiply(*job.parallel.data, model_ranks) != gpus) {
    return fail(
        impossible("parallel.data", std::to_string(*job.parallel.data),
                   fmt::format("{}: {} nodes x {} GPUs / (tensor {} x pipeline {} x context {})",
                               gpus / model_ranks, job.machine.nodes, *job.machine.gpus, p.tensor,
                               p.pipeline, p.context),
                   "leave parallel.data out, or change machine.nodes and machine.gpus"));
  }
  return {};
}

// PYTORCH_CUDA_ALLOC_CONF speaks to PyTorch's allocator.
Result<void> check_allocator(const Job& job, const facts::FrameworkProfile& framework) {
  if (!job.train.allocator || framework.allocator.kind == facts::AllocatorKind::caching) return {};
  return fail(impossible("train.allocator", "\"" + job.train.allocator->text + "\"",
                         "none: " + framework.name + " has an allocator of its own",
                         "leave train.allocator out"));
}

Result<void> resolve_sharding(Job& job) {
  const std::int64_t data = *job.parallel.data;
  const Sharding sharding = job.parallel.sharding;
  // FSDP shards over the context-parallel ranks too: they hold the same parameters.
  const std::int64_t alike = checked_multiply(data, job.parallel.context);
  const std::int64_t group =
      sharding == Sharding::hsdp ? std::min(alike, *job.machine.gpus) : alike;
  fill(job, job.parallel.shard_group, "parallel.shard_group", group, Origin::fallback);
  if (alike % *job.parallel.shard_group != 0) {
    return fail(impossible("parallel.shard_group", std::to_string(*job.parallel.shard_group),
                           fmt::format("a divisor of {} = parallel.data x parallel.context", alike),
                           ""));
  }
  ShortPrecision reduce = own_type(job.train.precision);
  if (is_mixed(job.train.precision) && !is_zero(sharding)) reduce = ShortPrecision::fp32;
  fill(job, job.parallel.reduce_precision, "parallel.reduce_precision", reduce, Origin::fallback);
  return {};
}

// Batches filled to a number of tokens: as many samples of the job's length as fit, at least one.
// The model's longest sample says nothing of a corpus of sentences: a job that says no length gets
// the batch with which fairseq, whose word max_tokens is, warms its allocator up: sentences of 128
// tokens (get_dummy_batch(num_tokens, ..., src_len=128, tgt_len=128)).
Result<void> resolve_tokens_per_batch(Job& job) {
  facts::TrainKeys& train = job.train;
  if (!train.tokens_per_batch) return {};
  const auto said = job.origins.find("train.micro_batch");
  const bool derived = said != job.origins.end() && said->second.origin != Origin::job;
  if (train.micro_batch && !derived) {
    return fail(impossible("train.tokens_per_batch", std::to_string(*train.tokens_per_batch),
                           "one of train.micro_batch and train.tokens_per_batch",
                           "samples or tokens say how large a batch is, not both"));
  }
  if (!train.sequence_length) {
    train.sequence_length = std::min(kSentence, *train.tokens_per_batch);
    job.origins["train.sequence_length"] = {Origin::fallback, {}};
  }
  train.micro_batch = std::max<std::int64_t>(1, *train.tokens_per_batch / *train.sequence_length);
  job.origins["train.micro_batch"] = {Origin::fallback, {}};
  return {};
}

// Every rank of a context group holds the same number of tokens.
Result<void> resolve_tokens(Job& job, std::int64_t sequence) {
  fill(job, job.train.sequence_length, "train.sequence_length", sequence, Origin::model);
  if (*job.train.sequence_length % job.parallel.context == 0) return {};
  return fail(impossible(
      "parallel.context", std::to_string(job.parallel.context),
      fmt::format("a divisor of train.sequence_length = {}", *job.train.sequence_length), ""));
}

// micro_batch x gradient_accumulation x data = global_batch; what is left out follows.
Result<void> resolve_batch(Job& job) {
  facts::TrainKeys& train = job.train;
  const std::int64_t data = *job.parallel.data;
  if (!train.micro_batch) {
    const bool derivable = train.global_batch && train.gradient_accumulation;
    const std::int64_t per_rank =
        derivable ? *train.global_batch / checked_multiply(data, *train.gradient_accumulation) : 1;
    fill(job, train.micro_batch, "train.micro_batch", std::max<std::int64_t>(1, per_rank),
         Origin::fallback);
  }
  const std::int64_t one_pass = checked_multiply(*train.micro_batch, data);
  if (train.global_batch && *train.global_batch % one_pass != 0) {
    return fail(impossible("train.global_batch", std::to_string(*train.global_batch),
                           fmt::format("a multiple of {} = micro_batch {} x data-parallel ranks {}",
                                       one_pass, *train.micro_batch, data),
                           "change train.micro_batch or train.global_batch"));
  }
  const std::int64_t passes = train.global_batch ? *train.global_batch / one_pass : 1;
  fill(job, train.gradient_accumulation, "train.gradient_accumulation", passes, Origin::fallback);
  const std::int64_t product = checked_multiply(one_pass, *train.gradient_accumulation);
  fill(job, train.global_batch, "train.global_batch", product, Origin::fallback);
  if (*train.global_batch != product) {
    return fail(impossible(
        "train.global_batch", std::to_string(*train.global_batch),
        fmt::format("{} = micro_batch {} x gradient_accumulation {} x data-parallel ranks {}",
                    product, *train.micro_batch, *train.gradient_accumulation, data),
        "give one of train.global_batch and train.gradient_accumulation"));
  }
  return {};
}

// A framework's own recipe may drop out of the adapters' inputs where the job does not say.
void resolve_adapters(Job& job, const facts::FrameworkProfile& framework) {
  const auto habit = framework.operators.find("lora_dropout");
  const bool given = job.origins.contains("train.lora.dropout");
  if (given || habit == framework.operators.end() || job.train.method == facts::Method::full)
    return;
  double value = 0.0;
  const std::string& word = habit->second;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error == std::errc()) job.train.lora.dropout = value;
}

// A chunked loss that a library brings comes with the library's kernels: names joined by commas.
void resolve_kernels(Job& job, const facts::FrameworkProfile& framework) {
  const auto habit = framework.operators.find("chunked_loss_kernels");
  const bool given = job.origins.contains("train.fused_kernels");
  if (given || habit == framework.operators.end() || job.train.loss != facts::Loss::chunked) return;
  std::string_view rest = habit->second;
  while (!rest.empty()) {
    const std::size_t comma = std::min(rest.find(", "), rest.size());
    const auto kernel = facts::from_name<facts::FusedKernel>(rest.substr(0, comma));
    if (kernel) job.train.fused_kernels.push_back(*kernel);
    rest.remove_prefix(std::min(comma + 2, rest.size()));
  }
}

// DeepSpeed's ranks write their own partitions; nothing is gathered (engine.py, save_checkpoint).
void resolve_checkpoint(Job& job) {
  const facts::Sharding sharding = job.parallel.sharding;
  const bool zero = sharding == facts::Sharding::zero1 || sharding == facts::Sharding::zero2 ||
                    sharding == facts::Sharding::zero3;
  if (zero && !job.origins.contains("checkpoint.method")) {
    job.checkpoint.method = facts::CheckpointMethod::sharded_sync;
  }
}

// A framework that shards by FSDP may read the model on one rank of a node and broadcast it.
void resolve_loading(Job& job, const facts::FrameworkProfile& framework) {
  const auto habit = framework.operators.find("sharded_loading");
  if (habit == framework.operators.end() || habit->second != "rank0") return;
  const Sharding sharding = job.parallel.sharding;
  if (sharding == Sharding::none || is_zero(sharding)) return;
  if (job.origins.contains("checkpoint.load")) return;
  job.checkpoint.load = facts::CheckpointLoad::rank0;
}

Result<void> resolve_optimizer(Job& job, const facts::Machine& machine,
                               const facts::FrameworkProfile& framework) {
  facts::OptimizerKeys& optimizer = job.train.optimizer;
  if (optimizer.fused.value_or(false) && optimizer.foreach.value_or(false)) {
    return fail(impossible("train.optimizer", "fused and foreach both true", "one of them", ""));
  }
  // DeepSpeed replaces AdamW with its own fused kernel; a framework's own may be a Python loop.
  const auto habit = framework.operators.find("optimizer");
  const bool known = habit != framework.operators.end();
  const bool zero = is_zero(job.parallel.sharding);
  const bool fused =
      (zero || (known && habit->second == "fused")) && !optimizer.foreach.value_or(false);
  // Tensors of the host are stepped one by one (torch/optim/optimizer.py: foreach is the default
  // for tensors of accelerators only).
  const bool on_host = facts::computes_on_host(machine.gpu);
  const bool loop = on_host || (known && habit->second == "loop" && !zero);
  fill(job, optimizer.fused, "train.optimizer.fused", fused, Origin::fallback);
  fill(job, optimizer.foreach, "train.optimizer.foreach", !*optimizer.fused && !loop,
       Origin::fallback);
  const bool is_short = own_type(job.train.precision) != ShortPrecision::fp32;
  const bool master = is_short && is_zero(job.parallel.sharding);
  fill(job, optimizer.master_weights, "train.optimizer.master_weights", master, Origin::fallback);
  // bitsandbytes' 32-bit states are fp32 whatever they step (optim/optimizer.py, init_state);
  // torch's are of the parameters' type.
  const bool wide = *optimizer.master_weights || is_mixed(job.train.precision) ||
                    optimizer.name == facts::OptimizerName::paged_adamw;
  fill(job, optimizer.state_precision, "train.optimizer.state_precision",
       wide ? ShortPrecision::fp32 : own_type(job.train.precision), Origin::fallback);
  return {};
}

// A sound has seconds; what is written of it is as long as decoder_sequence_length says.
Result<void> resolve_sound(Job& job, const model::Graph& graph) {
  facts::TrainKeys& train = job.train;
  const std::string& name = graph.model_type;
  if (graph.audio_samples == 0) {
    return fail(impossible("train.audio_seconds", fmt::format("{}", *train.audio_seconds),
                           "no value: " + name + " reads no sound", ""));
  }
  if (train.sequence_length) {
    return fail(impossible("train.sequence_length", std::to_string(*train.sequence_length),
                           "no value: " + name + " reads sound",
                           "train.audio_seconds says how long a sample is, "
                           "train.decoder_sequence_length how many tokens are written of it"));
  }
  const double seconds =
      static_cast<double>(graph.audio_samples) / static_cast<double>(model::kSamplingRate);
  fill(job, train.audio_seconds, "train.audio_seconds", seconds, Origin::model);
  if (graph.decoder_sequence > 0) {
    fill(job, train.decoder_sequence_length, "train.decoder_sequence_length",
         graph.decoder_sequence, Origin::model);
  }
  return {};
}

// Text has a length, pictures have a size; a job that gives the other one means another model.
Result<void> resolve_sample(Job& job, const model::Graph& graph) {
  facts::TrainKeys& train = job.train;
  const bool pictures = graph.image_height > 0;
  const std::string& name = graph.model_type;
  if (!pictures && !train.image_size.empty()) {
    return fail(impossible("train.image_size", "a size", "no value: " + name + " reads text",
                           "train.sequence_length says how long a sample is"));
  }
  if (graph.row_bytes > 0) {
    if (!train.sequence_length) return {};
    return fail(impossible("train.sequence_length", std::to_string(*train.sequence_length),
                           "no value: " + name + " reads rows of a table",
                           "train.micro_batch says how many"));
  }
  if (train.images && graph.images == 0) {
    return fail(impossible("train.images", std::to_string(*train.images),
                           "no value: " + name + " does not read pictures beside text",
                           "train.micro_batch says how many samples"));
  }
  if (pictures && graph.images == 0 && train.sequence_length) {
    return fail(impossible("train.sequence_length", std::to_string(*train.sequence_length),
                           "no value: " + name + " reads pictures",
                           "train.image_size says how large a sample is"));
  }
  if (graph.audio_samples > 0 || train.audio_seconds) return resolve_sound(job, graph);
  if (train.frames && graph.frames == 0) {
    return fail(impossible("train.frames", std::to_string(*train.frames),
                           "no value: " + name + " reads no videos", ""));
  }
  if (!pictures) return resolve_tokens(job, graph.sequence);
  if (graph.frames > 0) {
    fill(job, train.frames, "train.frames", graph.frames, Origin::model);
  }
  if (train.image_size.empty()) {
    train.image_size = {graph.image_height, graph.image_width};
    job.origins["train.image_size"] = {Origin::model, {}};
  }
  if (graph.images == 0) return {};
  fill(job, train.images, "train.images", graph.images, Origin::model);
  return resolve_tokens(job, graph.sequence);
}

// Rows of a table are read a batch at a time, each from where it begins (NVIDIA
// DeepLearningExamples dlrm/data/datasets.py, ParametricDataset; torchrec datasets/criteo.py).
void read_in_batches(Job& job) {
  if (job.origins.contains("data.shuffle")) return;
  job.data.shuffle = facts::Shuffle::none;
  job.origins["data.shuffle"] = {Origin::fallback, {}};
}

// Records can only be read one behind the other: recipes of the framework shuffle them in a buffer.
void resolve_shuffle_buffer(Job& job, const facts::FrameworkProfile& framework) {
  const auto habit = framework.operators.find("shuffle_buffer");
  if (habit == framework.operators.end() || job.data.layout != facts::DataLayout::tfrecord) return;
  if (job.data.shuffle == facts::Shuffle::none) return;
  fill(job, job.data.shuffle_buffer, "data.shuffle_buffer",
       static_cast<std::int64_t>(std::stoll(habit->second)), Origin::fallback);
}

Result<void> resolve_data(Job& job, const model::Graph& graph, const facts::Machine& machine) {
  facts::DataKeys& data = job.data;
  // Whoever reads job files looks into the folder first (cli/planning.cpp).
  if (data.sizes_from && !data.bytes_per_sample) {
    Error error = impossible("data.sizes_from", *data.sizes_from, "data.bytes_per_sample",
                             "the folder was not measured: give the mean");
    error.code = ErrorCode::missing_value;
    return fail(std::move(error));
  }
  const bool pictures = graph.image_height > 0;
  const bool rows = graph.row_bytes > 0;
  const bool sound = graph.audio_samples > 0;
  fill(job, data.kind, "data.kind",
       rows               ? facts::DataKind::tabular
       : graph.frames > 0 ? facts::DataKind::video
       : pictures         ? facts::DataKind::jpeg
       : sound            ? facts::DataKind::audio
                          : facts::DataKind::tokens,
       Origin::model);
  if (sound && *data.kind == facts::DataKind::audio) {
    fill(job, data.bytes_per_sample, "data.bytes_per_sample",
         kWaveBytes * static_cast<double>(graph.audio_samples), Origin::model);
  }
  if (rows && *data.kind == facts::DataKind::tabular) {
    fill(job, data.bytes_per_sample, "data.bytes_per_sample", static_cast<double>(graph.row_bytes),
         Origin::model);
    fill(job, data.layout, "data.layout", facts::DataLayout::memmap, Origin::fallback);
    read_in_batches(job);
  }
  const bool tokens = *data.kind == facts::DataKind::tokens;
  if (tokens && !pictures) {
    const double bytes_per_token = graph.vocabulary <= kTwoByteVocabulary ? 2.0 : 4.0;
    fill(job, data.bytes_per_sample, "data.bytes_per_sample",
         bytes_per_token * tokens_on_storage(job, graph.sequence), Origin::model);
  }
  fill(job, data.layout, "data.layout",
       tokens ? facts::DataLayout::memmap : facts::DataLayout::files, Origin::fallback);
  const auto is_named = [&](const facts::Storage& s) { return s.name == *data.location; };
  if (data.location && *data.location != "network" && !machine.storage.empty() &&
      std::none_of(machine.storage.begin(), machine.storage.end(), is_named)) {
    std::string names = "network";
    for (const facts::Storage& storage : machine.storage) names += ", " + storage.name;
    Error error = impossible("data.location", *data.location, names, "a storage of " + machine.id);
    error.code = ErrorCode::unknown_name;
    return fail(std::move(error));
  }
  const std::string first = machine.storage.empty() ? "nvme" : machine.storage.front().name;
  fill(job, data.location, "data.location", first,
       machine.storage.empty() ? Origin::fallback : Origin::machine);
  const bool light =
      tokens || *data.kind == facts::DataKind::text || *data.kind == facts::DataKind::synthetic;
  fill(job, data.workers, "data.workers", light ? kTokenWorkers : kDecodeWorkers, Origin::fallback);
  fill(job, job.checkpoint.every_steps, "checkpoint.every_steps", kCheckpointSteps,
       Origin::fallback);
  return {};
}

}  // namespace

model::SampleShape sample_shape(const Job& job, std::int64_t batch) {
  model::SampleShape shape;
  shape.batch = batch;
  shape.sequence = job.train.sequence_length.value_or(0);
  shape.decoder_sequence = job.train.decoder_sequence_length.value_or(0);
  if (job.train.image_size.size() == 2) {
    shape.height = job.train.image_size[0];
    shape.width = job.train.image_size[1];
  }
  shape.frames = job.train.frames.value_or(0);
  shape.images = job.train.images.value_or(0);
  shape.audio_seconds = job.train.audio_seconds.value_or(0.0);
  return shape;
}

Result<Job> resolve(Job job, const facts::ModelSource& model, const facts::Machine& machine,
                    const facts::FrameworkProfile& framework, step::Workshop* workshop) {
  STEELYARD_CHECK(check_allocator(job, framework));
  STEELYARD_CHECK(resolve_ranks(job, machine));
  STEELYARD_CHECK(resolve_engine(job, framework));
  STEELYARD_CHECK(resolve_sharding(job));
  STEELYARD_CHECK(resolve_tokens_per_batch(job));
  STEELYARD_CHECK(resolve_batch(job));
  STEELYARD_CHECK(resolve_objective(job));
  resolve_adapters(job, framework);
  resolve_kernels(job, framework);
  resolve_checkpoint(job);
  resolve_loading(job, framework);
  STEELYARD_CHECK(resolve_optimizer(job, machine, framework));
  // With the job's batch: a file may fix one.
  STEELYARD_TRY(graph, built_graph(model, sample_shape(job, *job.train.micro_batch), workshop));
  STEELYARD_TRY(targets, step::with_expressions_matched(*graph, job.train.lora.targets));
  job.train.lora.targets = std::move(targets);
  STEELYARD_CHECK(resolve_sample(job, *graph));
  resolve_workspaces(job, *graph, framework);
  STEELYARD_CHECK(resolve_data(job, *graph, machine));
  resolve_shuffle_buffer(job, framework);
  if (framework.versions.as_object() != nullptr) job.versions = framework.versions;
  if (job.name.empty()) job.name = model.name;
  return job;
}

}  // namespace steelyard::plan
