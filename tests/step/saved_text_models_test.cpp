// The bytes that autograd keeps of whole tiny text models, to the byte, against what PyTorch kept
// of transformers' own (saved_text_models.json; oracle_saved_text.py recorded it).
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>

#include "codec/codec.h"
#include "model/model.h"
#include "step/block_trace.h"
#include "step/frozen_parts.h"

namespace steelyard::step {
namespace {

using facts::Value;

std::int64_t whole(const Value& row, std::string_view key) {
  return *row.find(key)->as_whole();
}

BlockOptions eager(DType dtype) {
  BlockOptions options;
  options.tape.arithmetic = {.compute = dtype, .ambient = dtype};
  options.weight_dtype = dtype;
  options.tape.kernel_temporaries = false;
  options.variants.attention = AttentionKernel::math;
  options.variants.math_attention = MathAttention::eager;
  return options;
}

Tensor outside(std::int64_t numel, DType dtype) {
  Tensor tensor;
  tensor.storage = std::make_shared<Storage>();
  tensor.storage->external = true;
  tensor.storage->bytes = bytes_of(numel, dtype);
  tensor.numel = numel;
  tensor.dtype = dtype;
  return tensor;
}

// Scalars (a loss's total weight) are not in the rows.
constexpr Bytes kScalar(8);

Bytes own_bytes(const BlockTrace& trace) {
  Bytes sum;
  for (const SavedStorage& storage : trace.saved) {
    if (storage.external || storage.borrowed || storage.bytes <= kScalar) continue;
    sum += storage.bytes;
  }
  return sum;
}

// Whether the block reads a shared tensor that it makes, which is then among what it saved.
bool reads_own_shared(const model::Block& block) {
  for (const model::Operator& maker : block.operators) {
    for (const model::TensorRef made : maker.outputs) {
      if (!made.shared) continue;
      for (const model::Operator& reader : block.operators) {
        const auto& inputs = reader.inputs;
        if (std::find(inputs.begin(), inputs.end(), made) != inputs.end()) return true;
      }
    }
  }
  return false;
}

// Tensors that one block makes and others save are told by their end in the backward passes.
Bytes saved_of(const model::Graph& graph, DType dtype = DType::fp32) {
  Program program;
  SharedTensors shared;
  const std::int64_t queries = graph.decoder_sequence > 0 ? graph.decoder_sequence : graph.sequence;
  shared.mask = outside(queries * queries, dtype);
  BlockOptions options = eager(dtype);
  options.input_requires_grad = false;
  std::set<std::int32_t> released, counted;
  Bytes sum;
  for (const model::Segment& segment : graph.segments) {
    const bool first = &segment == &graph.segments.front();
    const bool last = &segment == &graph.segments.back();
    for (std::int64_t i = 0; i < segment.repeat; ++i) {
      for (const model::Block& block : segment.blocks) {
        const auto made = static_cast<std::ptrdiff_t>(shared.slots.size());
        const BlockTrace trace = trace_block(program, graph, block, options, shared, first, last);
        options.input_requires_grad = trace.output_requires_grad;
        sum += own_bytes(trace);
        if (reads_own_shared(block)) {
          counted.insert(shared.slots.begin() + made, shared.slots.end());
        }
        for (const Event& event : trace.backward) {
          if (event.kind == EventKind::release_shared) released.insert(event.index);
        }
      }
    }
  }
  for (const std::int32_t slot : released) {
    if (counted.contains(slot)) continue;
    sum += program.slots[static_cast<std::size_t>(slot)].bytes;
  }
  return sum;
}

TEST(SavedTextModels, AreWhatTorchKeeps) {
  const auto file = codec::read_value(std::filesystem::path(STEELYARD_TESTS_DIR) / "step" /
                                      "saved_text_models.json");
  ASSERT_TRUE(file) << to_text(file.error());
  const model::SampleShape sample{.batch = whole(*file, "batch"),
                                  .sequence = whole(*file, "sequence"),
                                  .decoder_sequence = whole(*file, "decoder_sequence")};
  for (const Value& row : *file->find("models")->as_array()) {
    const Value& config = *row.find("config");
    SCOPED_TRACE(codec::to_json(config, 0));
    const auto graph = model::build({"recorded", config, ""}, sample);
    ASSERT_TRUE(graph) << to_text(graph.error());
    const bool narrow = row.find("dtype") != nullptr;
    SCOPED_TRACE(narrow ? "bf16" : "fp32");
    const Bytes saved = saved_of(*graph, narrow ? DType::bf16 : DType::fp32);
    // A few numbers for each head of a scan are not told apart.
    const Value* within = row.find("within");
    const auto kept = static_cast<double>(whole(row, "saved_bytes"));
    EXPECT_NEAR(saved.real(), kept, within != nullptr ? *within->as_real() * kept : 0.0);
  }
}

TEST(SavedSpeechModels, AreWhatTorchKeeps) {
  const auto file =
      codec::read_value(std::filesystem::path(STEELYARD_TESTS_DIR) / "step/speech_models.json");
  ASSERT_TRUE(file) << to_text(file.error());
  const model::SampleShape sample{.batch = whole(*file, "batch"),
                                  .decoder_sequence = whole(*file, "decoder_sequence"),
                                  .audio_seconds = 1.0};
  for (const Value& row : *file->find("models")->as_array()) {
    const Value& config = *row.find("config");
    SCOPED_TRACE(codec::to_json(config, 0));
    auto graph = model::build({"recorded", config, ""}, sample);
    ASSERT_TRUE(graph) << to_text(graph.error());
    facts::Job job;
    if (const Value* frozen = row.find("frozen")) {
      for (const Value& part : *frozen->as_array()) job.train.frozen.push_back(*part.as_text());
      graph = with_frozen_parts(std::move(*graph), job);
      ASSERT_TRUE(graph) << to_text(graph.error());
    }
    EXPECT_EQ(saved_of(*graph).value(), whole(row, "saved_bytes"));
  }
}

// Scales and biases of a loss, and counts, are a few bytes more.
TEST(SavedPictureTextModels, AreWhatTorchKeeps) {
  const auto file = codec::read_value(std::filesystem::path(STEELYARD_TESTS_DIR) /
                                      "step/saved_picture_text_models.json");
  ASSERT_TRUE(file) << to_text(file.error());
  for (const Value& row : *file->find("models")->as_array()) {
    const Value& config = *row.find("config");
    SCOPED_TRACE(codec::to_json(config, 0));
    model::SampleShape sample{.batch = whole(*file, "batch")};
    if (row.find("sequence") != nullptr) sample.sequence = whole(row, "sequence");
    if (row.find("side") != nullptr) sample.height = sample.width = whole(row, "side");
    const auto graph = model::build({"recorded", config, ""}, sample);
    ASSERT_TRUE(graph) << to_text(graph.error());
    const auto kept = static_cast<double>(whole(row, "saved_bytes"));
    const Value* within = row.find("within");
    const double share = within != nullptr ? *within->as_real() : 0.0003;
    EXPECT_NEAR(saved_of(*graph).real(), kept, share * kept);
  }
}

}  // namespace
}  // namespace steelyard::step
