#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "base/text.h"
#include "report/report.h"
#include "report/sample_plan.h"
#include "support/golden.h"

namespace steelyard {
namespace {

using report::why_text;
using ::testing::HasSubstr;
using ::testing::Not;

facts::VramWhy sample_why() {
  facts::VramWhy why;
  const facts::Plan plan = testing::sample_plan();
  why.job = "sample";
  why.capacity = plan.vram.capacity;
  why.rank = plan.vram.fullest;
  why.rank.kind = "pipeline stage 1 of 2";
  why.rank.ranks = 4;
  why.kinds = {"pipeline stage 1 of 2", "pipeline stage 2 of 2"};
  facts::TensorGroup states;
  states.operation = "optimizer state";
  states.layer = "model.layers.0-31";
  states.tensors = 64;
  states.shape = {1792, 4096};
  states.dtype = "fp32";
  states.bytes = Bytes(std::int64_t{3} << 30);
  states.category = facts::VramCategory::optimizer;
  states.born = {"optimizer", "", "optimizer state"};
  facts::TensorGroup product;
  product.operation = "mlp.up_proj: mm";
  product.layer = "model.layers.0-31";
  product.tensors = 32;
  product.shape = {8192, 14336};
  product.dtype = "bf16";
  product.bytes = Bytes(std::int64_t{1} << 30);
  product.category = facts::VramCategory::activations;
  product.born = {"forward", "model.layers.0-31", "mlp.up_proj: mm"};
  product.freed = facts::PeakAt{"backward", "model.layers.0-31", "mlp.act: mul"};
  facts::TensorGroup buffer;
  buffer.operation = "bucket";
  buffer.layer = "";
  buffer.bytes = Bytes(256 << 20);
  buffer.category = facts::VramCategory::communication;
  buffer.born = {"setup", "", "bucket"};
  why.tensors = {states, product, buffer};
  why.workspaces = Bytes(64 << 20);
  return why;
}

TEST(WhyText, Whole) {
  testing::expect_golden(why_text(sample_why(), {}), "report/golden/why");
}

TEST(WhyText, TheRestIsOneLine) {
  // 256 MiB of 3 GiB + 1 GiB + 256 MiB + 64 MiB = 4416 MiB: 5.8 %.
  const std::string text = why_text(sample_why(), {}, 2);
  EXPECT_THAT(text, HasSubstr("256.0 MiB  5.8 %  1 smaller group\n"));
  EXPECT_THAT(text, Not(HasSubstr("bucket")));
}

TEST(WhyText, NarrowAndPlain) {
  for (const int columns : {60, 80, 132}) {
    const std::string text = why_text(sample_why(), {.columns = columns, .ascii = true});
    EXPECT_TRUE(std::all_of(text.begin(), text.end(), [](char c) { return c > 0; })) << columns;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      EXPECT_LE(display_width(line), static_cast<std::size_t>(columns)) << line;
    }
  }
}

TEST(WhyText, NamesFromOutsideCannotMoveTheCursor) {
  facts::VramWhy why = sample_why();
  why.job = "a\x1b[2Jb";
  why.tensors[0].layer = "c\x1b[2Jd";
  EXPECT_THAT(why_text(why, {}), Not(HasSubstr("\x1b[2J")));
}

}  // namespace
}  // namespace steelyard
