// What Megatron's fused operators keep and hold, in bytes worked by hand. x is [4,8] in bf16: 64 B.
#include "step/fused_operators.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

namespace steelyard::step {
namespace {

using namespace literals;

constexpr std::int64_t kRows = 4, kWide = 8;

class FusedOperators : public ::testing::Test {
 protected:
  FusedOperators() : tape_(program_, options()) { tape_.record_to(events_); }

  static TapeOptions options() {
    TapeOptions options;
    options.arithmetic.compute = DType::bf16;
    return options;
  }
  Tensor input(std::int64_t numel = kRows * kWide) {
    Tensor x = tape_.external(numel, DType::bf16);
    x.requires_grad = true;
    return x;
  }
  Bytes moved(bool most) const {  // live at the end, or at the fullest moment
    Bytes live;
    Bytes peak;
    for (const Event& event : events_) {
      const Bytes bytes = event.kind == EventKind::allocate || event.kind == EventKind::free
                              ? program_.slots[static_cast<std::size_t>(event.index)].bytes
                              : Bytes();
      live += event.kind == EventKind::free ? -1 * bytes : bytes;
      peak = std::max(peak, live);
    }
    return most ? peak : live;
  }

  Program program_;
  std::vector<Event> events_;
  Tape tape_;
};

TEST_F(FusedOperators, ActivationKeepsItsInputAlone) {
  const Tensor x = input();
  const Tensor plain = bias_activation(tape_, x, Tensor(), kWide, false);
  EXPECT_EQ(plain.node->saved, std::vector<StorageRef>{x.storage});
  EXPECT_EQ(bytes_of(plain), 64_B);
  EXPECT_EQ(bytes_of(bias_activation(tape_, x, Tensor(), kWide, true)),
            32_B);  // halved by the gate
}

TEST_F(FusedOperators, DropoutKeepsAByteForEachElement) {
  const Tensor x = input();
  const Tensor residual = input();
  const Tensor dropped = bias_dropout_add(tape_, x, residual, Tensor(), kWide, 0.1);
  ASSERT_EQ(dropped.node->saved.size(), 1u);
  EXPECT_EQ(dropped.node->saved[0]->bytes, 32_B);
  EXPECT_TRUE(bias_dropout_add(tape_, x, residual, Tensor(), kWide, 0.0).node->saved.empty());
}

TEST_F(FusedOperators, RotaryKeepsItsTable) {
  const Tensor table = tape_.external(16, DType::fp32);
  const Tensor y = fused_rotary(tape_, input(), table);
  EXPECT_EQ(y.node->saved, std::vector<StorageRef>{table.storage});
}

// Probabilities in fp32 (128 B), a mask (4 B) and a target (32 B) are kept; the loss has 16 B.
TEST_F(FusedOperators, CrossEntropyTurnsOneCopyIntoItsGradient) {
  Tensor loss = vocab_parallel_cross_entropy(tape_, input(), kRows, false);
  EXPECT_EQ(moved(false), 180_B);
  EXPECT_EQ(moved(true), 180_B);
  // Backward adds the cast of the gradient (64 B) and its own (16 B), nothing of 128 B.
  Tensor gradient = tape_.allocate(kRows, DType::fp32, "gradient");
  tape_.run_backward(loss, std::move(gradient));
  EXPECT_EQ(moved(true), 180_B + 64_B + 16_B);
}

// Compiled in parts there is a second fp32 copy while it runs.
TEST_F(FusedOperators, CompiledCrossEntropyHoldsASecondCopy) {
  const Tensor loss = vocab_parallel_cross_entropy(tape_, input(), kRows, true);
  EXPECT_EQ(moved(false), 180_B);
  EXPECT_EQ(moved(true), 180_B + 128_B);
}

// One sample, two heads of 4 over 8 tokens: q, k, v of 64 elements, scores of 128 (256 B in bf16).
class SoftmaxAttentionTest : public FusedOperators {
 protected:
  // What lives after the attention whose q, k and v lie outside.
  Bytes kept(double dropout, const SoftmaxAttention& how) {
    AttentionDims dims;
    dims.heads = dims.kv_heads = 2;
    dims.head_dim = 4;
    dims.queries = dims.keys = 8;
    result_ = fused_softmax_attention(tape_, input(64), input(64), input(64), dims, dropout, how);
    return moved(false);
  }
  Tensor result_;
};

// Probabilities 256, mask 128, dropped 256, result 128.
TEST_F(SoftmaxAttentionTest, KeepsProbabilitiesMaskAndWhatIsDropped) {
  EXPECT_EQ(kept(0.1, {}), 768_B);
}

// At the fullest: scores and their unread operand, then scores and probabilities, then scores,
// probabilities, dropped ones, mask and two results.
TEST_F(SoftmaxAttentionTest, HoldsTheScoresUntilItReturns) {
  (void)kept(0.1, {});
  EXPECT_EQ(moved(true), 256_B + 256_B + 256_B + 128_B + 2 * 128_B);
}

TEST_F(SoftmaxAttentionTest, WithoutDropoutKeepsProbabilitiesOnce) {
  EXPECT_EQ(kept(0.0, {}), 256_B + 128_B);
}

// fp32 probabilities are kept besides what is dropped.
TEST_F(SoftmaxAttentionTest, WideSoftmaxKeepsFourBytes) {
  EXPECT_EQ(kept(0.1, {.widens = true}), 512_B + 128_B + 256_B + 128_B);
}

}  // namespace
}  // namespace steelyard::step
