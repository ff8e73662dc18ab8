#include "step/fp8.h"

#include <algorithm>
#include <string>
#include <string_view>

namespace steelyard::step {

namespace {

using facts::DType;
using facts::Fp8Recipe;
using facts::Precision;

// transformer_engine/pytorch/quantization.py, check_fp8_support, check_mxfp8_support;
// utils.py, is_non_tn_fp8_gemm_supported.
constexpr double kFirstBf16 = 8.0;  // compute capability
constexpr double kFirstFp8 = 8.9;
constexpr double kFirstMicroscale = 10.0;
constexpr double kConsumerBlackwell = 12.0;
constexpr double kAfterBlackwell = 13.0;

constexpr std::int64_t kAlignment = 16;  // elements: 16 bytes
constexpr std::int64_t kBlock = 128, kMicroscale = 32, kNibbles = 16;

Error refused(std::string subject, std::string found, std::string accepted, std::string hint) {
  return {ErrorCode::not_supported,
          std::move(subject),
          std::move(found),
          std::move(accepted),
          std::move(hint),
          "",
          {}};
}

std::string word_of(const facts::FrameworkProfile& profile, std::string_view key) {
  const auto entry = profile.operators.find(key);
  return entry == profile.operators.end() ? std::string() : entry->second;
}

bool both_ways(const facts::Gpu& gpu) {
  if (!gpu.compute_capability) return false;
  const double capability = *gpu.compute_capability;
  return (capability >= kFirstMicroscale && capability < kConsumerBlackwell) ||
         capability >= kAfterBlackwell;
}

Result<void> check_gpu(const facts::Gpu& gpu, Precision precision) {
  const std::string name = gpu.name.empty() ? gpu.id : gpu.name;
  const std::string found = std::string(facts::name_of(precision)) + " on " + name;
  const bool micro = precision != Precision::fp8_mixed;
  if (gpu.compute_capability) {
    if (*gpu.compute_capability >= (micro ? kFirstMicroscale : kFirstFp8)) return {};
  } else {
    // Other vendors' cards say by their rates what they have; those with a scale per 32 elements
    // (MX formats) came with 4 bits.
    const auto& peak = micro ? gpu.peak.fp4 : gpu.peak.fp8;
    if (name.empty() || (peak && peak->value() > 0.0)) return {};
  }
  const bool has_bf16 = !gpu.compute_capability || *gpu.compute_capability >= kFirstBf16;
  const bool nvidia = gpu.vendor == "nvidia";
  std::string when = micro ? "products with a scale per 16 or 32 elements came with Blackwell"
                           : "products in fp8 came with Ada and Hopper";
  if (!nvidia) when = std::string("the catalogue knows no such rate of this card");
  return fail(refused(
      "train.precision", found,
      std::string(has_bf16 ? "bf16-mixed" : "fp16-mixed") + " or another precision of this GPU",
      when));
}

Result<Fp8Scaling> torchao_scaling(const facts::Job& job) {
  if (job.train.precision == Precision::nvfp4_mixed) {
    return fail(refused("train.precision", "nvfp4-mixed", "fp8-mixed, mxfp8-mixed or wider",
                        "this framework casts with torchao, which trains in 8 bits"));
  }
  if (job.train.precision == Precision::mxfp8_mixed) return Fp8Scaling::microscale;
  switch (job.train.fp8.value_or(facts::Fp8Keys()).recipe) {
    case Fp8Recipe::delayed:
    case Fp8Recipe::tensorwise: return Fp8Scaling::tensor;
    case Fp8Recipe::rowwise: return Fp8Scaling::row;
    case Fp8Recipe::blockwise: break;
  }
  return fail(refused("train.fp8.recipe", "blockwise", "tensorwise, rowwise or delayed",
                      "this framework casts with torchao"));
}

Result<Fp8Scaling> engine_scaling(const facts::Job& job) {
  if (job.train.precision == Precision::nvfp4_mixed) return Fp8Scaling::nibble;
  if (job.train.precision == Precision::mxfp8_mixed) return Fp8Scaling::microscale;
  switch (job.train.fp8.value_or(facts::Fp8Keys()).recipe) {
    case Fp8Recipe::delayed:
    case Fp8Recipe::tensorwise: return Fp8Scaling::tensor;
    case Fp8Recipe::blockwise: return Fp8Scaling::block;
    case Fp8Recipe::rowwise: break;
  }
  return fail(refused("train.fp8.recipe", "rowwise", "delayed, tensorwise or blockwise",
                      "this framework casts with Transformer Engine"));
}

bool fully_shards(facts::Sharding sharding) {
  return sharding == facts::Sharding::fsdp || sharding == facts::Sharding::hsdp ||
         sharding == facts::Sharding::shard_grad_op;
}

Result<Fp8> engine_of(const facts::Job& job, const facts::FrameworkProfile& profile,
                      const facts::Gpu& gpu) {
  const facts::Fp8Keys keys = job.train.fp8.value_or(facts::Fp8Keys());
  Fp8 fp8;
  fp8.library = Fp8Library::transformer_engine;
  STEELYARD_TRY(scaling, engine_scaling(job));
  fp8.scaling = scaling;
  // Scales per block or per 32 elements lie along one dimension: both layouts are cast.
  fp8.two_layouts = scaling != Fp8Scaling::tensor || !both_ways(gpu);
  fp8.short_weights = keys.all_gather;
  if (fp8.short_weights && !job.train.optimizer.master_weights.value_or(false)) {
    return fail(refused("train.fp8.all_gather", "true",
                        "false without train.optimizer.master_weights",
                        "parameters that are held in fp8 are stepped in fp32"));
  }
  if (job.megatron) {
    const auto count = [&job](std::string_view key) {
      const auto word = job.megatron->operators.find(key);
      return word == job.megatron->operators.end() ? 0 : std::stoll(word->second);
    };
    fp8.wide_first = count("wide_first_layers");
    fp8.wide_last = count("wide_last_layers");
    fp8.attention = job.megatron->operators.contains("fp8_attention");
    fp8.logits = job.megatron->operators.contains("fp8_logits");
  }
  fp8.caches_weights = word_of(profile, "fp8_weights") == "cached";
  fp8.recasts_weights = !fp8.caches_weights && fully_shards(job.parallel.sharding);
  const bool history = job.train.precision == Precision::fp8_mixed &&
                       keys.recipe == Fp8Recipe::delayed;  // its casts cannot be made again
  // csrc/extensions/cast.cpp, split_quantize: without scales to be found first, or in 4 bits.
  fp8.casts_together = history || scaling == Fp8Scaling::nibble;
  fp8.reuses_attention = !history && word_of(profile, "fp8_attention_output") == "kept_as_it_is";
  return fp8;
}

Result<Fp8> torchao_of(const facts::Job& job) {
  Fp8 fp8;
  fp8.library = Fp8Library::torchao;
  STEELYARD_TRY(scaling, torchao_scaling(job));
  fp8.scaling = scaling;
  fp8.short_weights = job.train.fp8.value_or(facts::Fp8Keys()).all_gather;
  if (!fp8.short_weights) return fp8;
  // Float8LinearConfig.__post_init__; the wrapper of a weight is FSDP2's extension point.
  if (scaling != Fp8Scaling::tensor) {
    return fail(refused("train.fp8.all_gather", "true", "false for this recipe",
                        "parameters are gathered in fp8 with one scale per tensor alone"));
  }
  if (!fully_shards(job.parallel.sharding)) {
    return fail(refused(
        "train.fp8.all_gather", "true",
        "false where parallel.sharding is " + std::string(facts::name_of(job.parallel.sharding)),
        "FSDP2 gathers parameters in fp8: parallel.sharding = \"fsdp\""));
  }
  return fp8;
}

}  // namespace

Result<Fp8> fp8_of(const facts::Job& job, const facts::FrameworkProfile& profile,
                   const facts::Gpu& gpu) {
  const Precision precision = job.train.precision;
  if (precision != Precision::fp8_mixed && precision != Precision::mxfp8_mixed &&
      precision != Precision::nvfp4_mixed) {
    if (!job.train.fp8) return Fp8();
    Error error = refused("train.fp8", "a table",
                          "no value: train.precision is " + std::string(name_of(precision)),
                          "set train.precision to fp8-mixed");
    error.code = ErrorCode::bad_input;
    return fail(std::move(error));
  }
  STEELYARD_CHECK(check_gpu(gpu, precision));
  const std::string library = word_of(profile, "fp8");
  // Adapters multiply in 16 bits beside Transformer Engine's linears: Megatron-Bridge makes them of
  // Megatron's own (peft/utils.py, ParallelLinearAdapter).
  const bool adapts = library == "transformer_engine" && job.train.method == facts::Method::lora;
  if (job.train.method != facts::Method::full && !adapts) {
    return fail(
        refused("train.precision", std::string(name_of(precision)),
                "bf16-mixed where train.method is " + std::string(facts::name_of(job.train.method)),
                "adapters over products in fp8 are not built in this version"));
  }
  if (library == "torchao") return torchao_of(job);
  if (library == "transformer_engine") return engine_of(job, profile, gpu);
  return fail(refused("framework profile " + profile.name + ", operators.fp8", library,
                      "torchao, transformer_engine",
                      "train in 16 bits, or name the library in catalog/frameworks"));
}

std::vector<Fp8Piece> fp8_pieces(Fp8Scaling scaling, std::int64_t numel, std::int64_t last,
                                 bool weight) {
  if (scaling == Fp8Scaling::nibble) {  // nvfp4_tensor.py: NVFP4Quantizer
    return {{ceil_divide(numel, 2), DType::fp8},
            {ceil_divide(numel, kNibbles), DType::fp8},
            {1, DType::fp32}};
  }
  std::vector<Fp8Piece> pieces = {{numel, DType::fp8}};
  switch (scaling) {
    case Fp8Scaling::tensor: pieces.push_back({1, DType::fp32}); break;
    case Fp8Scaling::row: pieces.push_back({ceil_divide(numel, last), DType::fp32}); break;
    case Fp8Scaling::block:
      pieces.push_back({ceil_divide(numel, weight ? kBlock * kBlock : kBlock), DType::fp32});
      break;
    case Fp8Scaling::microscale:
      pieces.push_back({ceil_divide(numel, kMicroscale), DType::int8});
      break;
    case Fp8Scaling::nibble: break;
  }
  return pieces;
}

bool is_fp8_block(const model::Block& block) {
  return block.input.index >= 0 && block.output.index >= 0 && !block.operators.empty() &&
         !model::is_loss(block.operators.back().kind);
}

bool has_fp8(const model::Block& block) {
  return std::any_of(block.weights.begin(), block.weights.end(),
                     [](const model::Weight& w) { return w.fp8; });
}

bool fits_fp8(std::int64_t inputs, std::int64_t outputs) {
  return inputs % kAlignment == 0 && outputs % kAlignment == 0;
}

namespace {

void mark(model::Block& block) {
  for (const model::Operator& op : block.operators) {
    const bool experts = op.kind == model::OperatorKind::experts;
    if (op.kind != model::OperatorKind::linear && !experts) continue;
    const std::size_t matrices = experts ? op.weights.size() : 1;
    for (std::size_t i = 0; i < matrices && i < op.weights.size(); ++i) {
      if (op.weights[i] < 0) continue;
      model::Weight& weight = block.weights[static_cast<std::size_t>(op.weights[i])];
      if (weight.adapter) continue;
      weight.fp8 = weight.shape.size() >= 2 && fits_fp8(weight.shape[0], weight.shape.back());
    }
  }
}

std::int64_t layers_of(const model::Segment& segment) {
  const auto marked = std::count_if(segment.blocks.begin(), segment.blocks.end(), is_fp8_block);
  return segment.repeat * static_cast<std::int64_t>(marked);
}

// Repeats of the segment that hold a layer of the `first` or of the `last` become segments of their
// own: every segment is then alike in all of its repeats.
std::vector<model::Segment> apart(const model::Segment& segment, std::int64_t before,
                                  std::int64_t all, const Fp8& fp8) {
  const std::int64_t layers = layers_of(segment);
  if (layers == 0) return {segment};
  const std::int64_t each = layers / segment.repeat;
  const std::int64_t begin = std::clamp<std::int64_t>(fp8.wide_first - before, 0, layers);
  const std::int64_t end =
      std::clamp<std::int64_t>(before + layers - (all - fp8.wide_last), 0, layers);
  const std::int64_t front = std::min(ceil_divide(begin, each), segment.repeat);
  const std::int64_t back = std::min(ceil_divide(end, each), segment.repeat - front);
  const std::int64_t between = segment.repeat - front - back;
  std::vector<model::Segment> parts(static_cast<std::size_t>(front), {1, segment.blocks});
  if (between > 0) parts.push_back({between, segment.blocks});
  parts.resize(parts.size() + static_cast<std::size_t>(back), {1, segment.blocks});
  return parts;
}

}  // namespace

model::Graph with_fp8(model::Graph graph, const Fp8& fp8) {
  if (!fp8.on()) return graph;
  std::int64_t all = 0;
  for (const model::Segment& segment : graph.segments) all += layers_of(segment);
  std::int64_t layer = 0;
  std::vector<model::Segment> segments;
  for (const model::Segment& segment : graph.segments) {
    for (model::Segment& part : apart(segment, layer, all, fp8)) {
      for (model::Block& block : part.blocks) {
        if (fp8.logits && !block.operators.empty() && is_loss(block.operators.back().kind)) {
          mark(block);
        }
        if (!is_fp8_block(block)) continue;
        if (layer >= fp8.wide_first && layer < all - fp8.wide_last) mark(block);
        ++layer;
      }
      layer += layers_of(part) / part.repeat * (part.repeat - 1);
      segments.push_back(std::move(part));
    }
  }
  graph.segments = std::move(segments);
  return graph;
}

}  // namespace steelyard::step
