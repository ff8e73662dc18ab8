// What `build` promises whatever the family: sizes, limits and messages.
#include "model/model.h"

#include <gtest/gtest.h>

#include "model/model_fixtures.h"

namespace steelyard::model {
namespace {

TEST(Model, Llama31Of8BHasItsPublishedParameters) {
  const auto graph = build(source_of({{"model_type", "llama"},
                                      {"vocab_size", 128256},
                                      {"intermediate_size", 14336},
                                      {"num_key_value_heads", 8}}),
                           {.batch = 1, .sequence = 8192});
  ASSERT_TRUE(graph) << to_text(graph.error());
  EXPECT_EQ(parameter_count(*graph), Parameters(8'030'261'248));
}

TEST(Model, Gpt2HasItsPublishedParameters) {
  const auto graph = build(source_of({{"model_type", "gpt2"}}), {.batch = 1, .sequence = 1024});
  ASSERT_TRUE(graph) << to_text(graph.error());
  EXPECT_EQ(parameter_count(*graph), Parameters(124'439'808));
}

}  // namespace
}  // namespace steelyard::model
