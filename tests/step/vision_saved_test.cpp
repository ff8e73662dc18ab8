// What networks of timm and torchvision save for backward, against torch itself: vision_saved.json,
// recorded by vision_saved.py, to the byte.
#include <gtest/gtest.h>

#include <filesystem>

#include "catalog/catalog.h"
#include "codec/codec.h"
#include "model/model.h"
#include "step/block_trace.h"

namespace steelyard::step {
namespace {

namespace fs = std::filesystem;

// A scalar of the loss (its total weight) has no dimensions and is not in the rows.
std::int64_t own_bytes(const BlockTrace& trace) {
  std::int64_t sum = 0;
  for (const SavedStorage& storage : trace.saved) {
    const bool scalar = storage.bytes <= Bytes(4);
    if (!storage.external && !storage.borrowed && !scalar) sum += storage.bytes.value();
  }
  return sum;
}

std::int64_t saved_bytes(const model::Graph& graph) {
  BlockOptions options;
  options.tape.kernel_temporaries = false;
  options.tape.arithmetic.compute = DType::fp32;
  options.tape.arithmetic.ambient = DType::fp32;
  options.variants.dropout = false;
  SharedTensors shared;
  Program program;
  std::size_t blocks = 0;
  for (const model::Segment& segment : graph.segments) {
    blocks += static_cast<std::size_t>(segment.repeat) * segment.blocks.size();
  }
  std::int64_t sum = 0;
  std::size_t number = 0;
  for (const model::Segment& segment : graph.segments) {
    for (std::int64_t i = 0; i < segment.repeat; ++i) {
      for (const model::Block& block : segment.blocks) {
        ++number;
        sum += own_bytes(
            trace_block(program, graph, block, options, shared, number == 1, number == blocks));
      }
    }
  }
  return sum;
}

TEST(VisionSaved, AgreesWithTorchToTheByte) {
  const auto file = codec::read_value(fs::path(STEELYARD_TESTS_DIR) / "step/vision_saved.json");
  ASSERT_TRUE(file) << to_text(file.error());
  const auto catalog = catalog::Catalog::at(fs::path(STEELYARD_SOURCE_DIR) / "catalog");
  const facts::Array& rows = *file->find("rows")->as_array();
  EXPECT_GE(rows.size(), 15u);
  for (const facts::Value& row : rows) {
    const std::string& id = *row.find("id")->as_text();
    const auto source = catalog.model(id);
    ASSERT_TRUE(source) << to_text(source.error());
    const std::int64_t side = *row.find("side")->as_whole();
    const auto graph = model::build(
        *source, {.batch = *file->find("batch")->as_whole(), .height = side, .width = side});
    ASSERT_TRUE(graph) << to_text(graph.error());
    EXPECT_EQ(saved_bytes(*graph), *row.find("bytes")->as_whole()) << id;
  }
}

}  // namespace
}  // namespace steelyard::step
