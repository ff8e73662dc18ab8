#include "model/layer_pattern.h"

#include <gtest/gtest.h>

namespace steelyard::model {
namespace {

using Kinds = std::vector<int>;

TEST(LayerPattern, ReadsWhatPythonWouldCompute) {
  EXPECT_EQ(layer_pattern("([0]*3+[1]*5)"), (Kinds{0, 0, 0, 1, 1, 1, 1, 1}));
  EXPECT_EQ(layer_pattern("([0,1]*2)"), (Kinds{0, 1, 0, 1}));
  EXPECT_EQ(layer_pattern("[1] * 2 + ([0] + [1]) * 2"), (Kinds{1, 1, 0, 1, 0, 1}));
  EXPECT_EQ(layer_pattern("[0]*0+[1]"), Kinds{1});
}

TEST(LayerPattern, RefusesEverythingElse) {
  for (const char* text : {"", "1", "[2]", "[0", "([0]", "[0]*", "[0]*x", "[0]+", "[0]]",
                           "__import__('os')", "[0]*99999999999", "([0]*9999)*9999"}) {
    EXPECT_FALSE(layer_pattern(text)) << text;
  }
  EXPECT_FALSE(layer_pattern(std::string(1000, '(') + "[0]"));
}

TEST(LayerPattern, KnowsWholeNumbers) {
  EXPECT_EQ(whole_of("12"), 12);
  EXPECT_FALSE(whole_of("12a"));
  EXPECT_FALSE(whole_of(""));
}

}  // namespace
}  // namespace steelyard::model
