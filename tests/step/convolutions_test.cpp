// A convolution's three products: the sides and the names that what times them reads.
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "model/block_builder.h"
#include "step/block_trace.h"
#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

// By operation.
std::map<std::string, Work> products_of(const model::Graph& graph, const model::Block& block) {
  Program program;
  SharedTensors shared;
  const BlockTrace trace = trace_block(program, graph, block, BlockOptions(), shared, false, false);
  EXPECT_FALSE(trace.backward.empty());
  std::map<std::string, Work> products;
  for (const Work& work : program.work) {
    if (work.kind != WorkKind::gemm) continue;
    const std::string& name = program.names[static_cast<std::size_t>(work.name)];
    const std::size_t colon = name.rfind(": ");
    products[colon == std::string::npos ? name : name.substr(colon + 2)] = work;
  }
  return products;
}

void expect_sides(const Work& work, std::int64_t m, std::int64_t n, std::int64_t k,
                  std::int64_t batch) {
  EXPECT_EQ(work.m, m);
  EXPECT_EQ(work.n, n);
  EXPECT_EQ(work.k, k);
  EXPECT_EQ(work.batch, batch);
}

// 16 channels to 32 in two groups on 2 pictures of 8 x 8, 3 x 3 at every second pixel: 32 pixels of
// results. Each of the 128 pixels of the input is seen by 9 / 4 windows of 16 results on average.
TEST(Convolutions, TheInputsGradientHasARowForEachPixelOfTheInput) {
  model::Graph graph;
  model::BlockBuilder block(graph, "layers");
  const model::TensorRef x = block.input({2, 16, 8, 8});
  const auto products = products_of(
      graph, block.finish(
                 block.conv("conv", x, 32, {.kernel = 3, .stride = 2, .padding = 1, .groups = 2})));
  ASSERT_EQ(products.size(), 3u);
  expect_sides(products.at("convolution"), 32, 16, 8 * 9, 2);
  expect_sides(products.at("convolution_strided_input_gradient"), 128, 8, 16 * 9 / 4, 2);
  expect_sides(products.at("convolution_weight_gradient"), 16, 8 * 9, 32, 2);
  for (const auto& [name, work] : products) {
    EXPECT_EQ(work.flops.value(), 2.0 * 32 * 16 * 72 * 2) << name;
  }
}

TEST(Convolutions, EachChannelForItselfIsAProductOfItsOwnName) {
  model::Graph graph;
  model::BlockBuilder block(graph, "layers");
  const model::TensorRef x = block.input({2, 16, 8, 8});
  const auto products = products_of(
      graph, block.finish(block.conv("conv", x, 16, {.kernel = 3, .padding = 1, .groups = 16})));
  ASSERT_EQ(products.size(), 3u);
  expect_sides(products.at("depthwise_convolution"), 128, 1, 9, 16);
  expect_sides(products.at("depthwise_convolution_input_gradient"), 128, 1, 9, 16);
  expect_sides(products.at("depthwise_convolution_weight_gradient"), 1, 9, 128, 16);
}

}  // namespace
}  // namespace steelyard::step
