// Multiply-adds and parameters of the pictures' networks as timm publishes them (vision_macs.json
// says where and how they were counted).
#include <gtest/gtest.h>

#include "catalog/catalog.h"
#include "codec/codec.h"
#include "model/model_fixtures.h"

namespace steelyard::model {
namespace {

const std::filesystem::path kRows =
    std::filesystem::path(STEELYARD_TESTS_DIR) / "model" / "vision_macs.json";

// What fvcore counts besides products: operations per element of what a norm puts out.
double beside_products(const Operator& op, const Block& block) {
  const auto elements_of = [&](TensorRef ref) {
    return static_cast<double>(
        elements(block.tensors.at(static_cast<std::size_t>(ref.index)).shape));
  };
  switch (op.kind) {
    case OperatorKind::batch_norm: return 2.0 * elements_of(op.outputs.front());
    case OperatorKind::layer_norm: return 5.0 * elements_of(op.outputs.front());
    default: return 0.0;
  }
}

double published_count(const Graph& graph) {
  double sum = forward_flops(graph).value() / 2.0;
  for (const Segment& segment : graph.segments) {
    for (const Block& block : segment.blocks) {
      for (const Operator& op : block.operators) {
        sum += static_cast<double>(segment.repeat) * beside_products(op, block);
      }
    }
  }
  return sum / 1e9;
}

TEST(VisionMacs, AreThosePublishedByTimm) {
  const auto file = codec::read_value(kRows);
  ASSERT_TRUE(file) << to_text(file.error());
  const auto catalog =
      catalog::Catalog::at(std::filesystem::path(STEELYARD_SOURCE_DIR) / "catalog");
  const facts::Array& rows = *file->find("rows")->as_array();
  EXPECT_GE(rows.size(), 80u);
  for (const facts::Value& row : rows) {
    const std::string& id = *row.find("id")->as_text();
    SCOPED_TRACE(id);
    const auto source = catalog.model(id);
    ASSERT_TRUE(source) << to_text(source.error());
    const std::int64_t side = *row.find("side")->as_whole();
    const auto graph = build(*source, {.batch = 1, .height = side, .width = side});
    ASSERT_TRUE(graph) << to_text(graph.error());
    const double published = *row.find("giga_multiply_adds")->as_real();
    // Two digits behind the point are published.
    EXPECT_NEAR(published_count(*graph), published, 0.005 + 0.003 * published);
    const double millions = static_cast<double>(parameter_count(*graph).value()) / 1e6;
    EXPECT_NEAR(millions, *row.find("million_parameters")->as_real(), 0.0051);
  }
}

}  // namespace
}  // namespace steelyard::model
