// Copies around the collectives of sequence parallelism, by hand.
//
// Two ranks, 8 tokens of 16 features in bf16: 128 elements, 256 bytes; a rank's part 128 bytes.
#include "step/token_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace steelyard::step {
namespace {

class TokenOrder : public ::testing::Test {
 protected:
  // Runs one of the two operators forward and backward; peaks of either direction, in bytes.
  std::pair<Bytes, Bytes> peaks(bool gather, GatheredInput kept, bool fused) {
    TapeOptions options;
    options.arithmetic.compute = DType::bf16;
    options.tensor = {2, 2};
    options.compiled = options.async_tensor = fused;
    Program program;
    std::vector<Event> events;
    Tape tape(program, options);
    tape.record_to(events);
    Variants variants;
    variants.gathered_input = kept;
    OperatorCall call;
    call.variants = &variants;
    const std::int64_t in = gather ? 64 : 128, out = gather ? 128 : 64;
    call.output_shapes = {{1, out / 16, 16}};
    Tensor x = tape.allocate(in, DType::bf16, "input");
    tape.materialise(x);
    x.requires_grad = true;
    x.leaf = 0;
    call.inputs = {std::move(x)};
    Tensor y = gather ? gathered_tokens(tape, call) : scattered_tokens(tape, call);
    tape.materialise(y);
    call.inputs.clear();
    const Bytes forward = most(program, events, 0);
    tape.end_operation();
    Tensor root = y;
    root.storage.reset();
    root.part.reset();
    y = Tensor();
    Tensor gradient = tape.allocate(out, DType::bf16, "gradient");
    tape.materialise(gradient);
    const std::size_t from = events.size() - 1;
    tape.set_backward(true);
    tape.leaf_gradient = [](std::int32_t, Tensor made) { EXPECT_TRUE(made); };
    tape.run_backward(root, std::move(gradient));
    return {forward, most(program, events, from)};
  }

 private:
  static Bytes most(const Program& program, const std::vector<Event>& events, std::size_t from) {
    Bytes now, most;
    for (std::size_t i = 0; i < events.size(); ++i) {
      if (events[i].kind != EventKind::allocate && events[i].kind != EventKind::free) continue;
      const Bytes bytes = program.slots[static_cast<std::size_t>(events[i].index)].bytes;
      events[i].kind == EventKind::allocate ? now += bytes : now -= bytes;
      if (i >= from) most = std::max(most, now);
    }
    return most;
  }
};

// Part 128, all tokens as they came 256, in order 256. Backward: the gradient 256, its copy 256.
TEST_F(TokenOrder, GatheredTokensAreCopied) {
  const auto [forward, backward] = peaks(true, GatheredInput::whole, false);
  EXPECT_EQ(forward, Bytes(128 + 256 + 256));
  EXPECT_EQ(backward, Bytes(256 + 256));
}

// The whole 256, its copy 256, the part 128. Backward: all tokens 256, in order 256.
TEST_F(TokenOrder, ScatteredTokensAreCopied) {
  const auto [forward, backward] = peaks(false, GatheredInput::whole, false);
  EXPECT_EQ(forward, Bytes(256 + 256 + 128));
  EXPECT_EQ(backward, Bytes(256 + 256));
}

TEST_F(TokenOrder, NothingIsCopiedWhereTokensComeFirstOrProductsReadChunks) {
  for (const bool gather : {true, false}) {
    for (const auto& [kept, fused] :
         {std::pair{GatheredInput::part, false}, std::pair{GatheredInput::whole, true}}) {
      const auto [forward, backward] = peaks(gather, kept, fused);
      EXPECT_EQ(forward, Bytes(128 + 256)) << gather << fused;
      EXPECT_EQ(backward, Bytes(128 + 256)) << gather << fused;
    }
  }
}

}  // namespace
}  // namespace steelyard::step
