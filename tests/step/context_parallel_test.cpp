// Attention over four context-parallel ranks, worked by hand.
//
// 1 sample, 2 heads of 8 features, 64 tokens on this rank, bf16: q, k, v and the result have 1,024
// elements each, 2,048 bytes; keys and values together 4,096; the statistics 2 x 64 in fp32, 512;
// seed and offset 8 each. A kernel's result with what belongs to it: 2,048 + 512 + 16 = 2,576.
#include "step/context_parallel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

namespace steelyard::step {
namespace {

using namespace literals;

constexpr std::int64_t kRanks = 4;

class ContextParallel : public ::testing::TestWithParam<ContextCode> {
 protected:
  // Runs forward, lets go of q, k and v, and notes what is alive; then backward.
  void play(ContextCode code, std::int64_t ranks = kRanks, bool compiled = false) {
    TapeOptions options;
    options.compiled = compiled;
    options.arithmetic.compute = DType::bf16;
    options.kernel_temporaries = false;
    options.context = {ranks, ranks};
    options.context_code = code;
    tape_ = std::make_unique<Tape>(program_, options);
    tape_->record_to(events_);
    AttentionDims dims;
    dims.heads = dims.kv_heads = 2;
    dims.head_dim = 8;
    dims.queries = 64;
    dims.keys = 64 * ranks;
    dims.context = ranks;
    Tensor q = input("q"), k = input("k"), v = input("v");
    Tensor y =
        attention_over_context(*tape_, std::move(q), std::move(k), std::move(v), dims, false);
    tape_->end_operation();
    after_forward_ = live();
    forward_events_ = events_.size();
    Tensor gradient = tape_->allocate(y.numel, y.dtype, "gradient");
    tape_->materialise(gradient);
    tape_->set_backward(true);
    Tensor root = y;
    root.storage.reset();
    y = Tensor();
    tape_->leaf_gradient = [this](std::int32_t, Tensor made) { made_.push_back(std::move(made)); };
    tape_->run_backward(root, std::move(gradient));
  }
  Bytes live() const { return walk(0, events_.size()).first; }
  Bytes forward_peak() const { return walk(0, forward_events_).second; }
  Bytes sent() const {
    Bytes sum;
    for (const Communication& one : program_.communication) sum += one.payload;
    return sum;
  }

  Program program_;
  std::vector<Event> events_;
  std::unique_ptr<Tape> tape_;
  std::vector<Tensor> made_;
  Bytes after_forward_;
  std::size_t forward_events_ = 0;

 private:
  Tensor input(const char* name) {
    Tensor x = tape_->allocate(1024, DType::bf16, name);
    tape_->materialise(x);
    x.requires_grad = true;
    x.leaf = leaf_++;
    return x;
  }
  std::pair<Bytes, Bytes> walk(std::size_t first, std::size_t end) const {
    Bytes now, most;
    for (std::size_t i = first; i < end; ++i) {
      const Bytes bytes =
          events_[i].kind == EventKind::allocate || events_[i].kind == EventKind::free
              ? program_.slots[static_cast<std::size_t>(events_[i].index)].bytes
              : Bytes();
      if (events_[i].kind == EventKind::allocate) now += bytes;
      if (events_[i].kind == EventKind::free) now -= bytes;
      most = std::max(most, now);
    }
    return {now, most};
  }
  std::int32_t leaf_ = 0;
};

// q, k, v, the merged result, its statistics, seed and offset.
TEST_F(ContextParallel, PyTorchKeepsItsOwnKeysAndValues) {
  play(ContextCode::sdpa_all_gather);
  EXPECT_EQ(after_forward_, 4 * 2048_B + 512_B + 16_B);
  // While two partial results are merged: q, k, v; all ranks' keys and values; a kernel's result;
  // in fp32 the sum so far, the new part, their difference, its product, and the weights.
  EXPECT_EQ(forward_peak(), 3 * 2048_B + 4 * 4096_B + 2576_B + 4 * 4096_B + 512_B);
}

TEST_F(ContextParallel, PyTorchsRingHoldsThreeBlocks) {
  play(ContextCode::sdpa_ring);
  EXPECT_EQ(after_forward_, 4 * 2048_B + 512_B + 16_B);
  // What came, a copy of it that is sent on, what will come.
  EXPECT_EQ(forward_peak(), 3 * 2048_B + 3 * 4096_B + 2576_B + 4 * 4096_B + 512_B);
}

// The keys and values that came last are kept instead of the rank's own.
TEST_F(ContextParallel, TheEnginesRingKeepsWhatCameLast) {
  play(ContextCode::engine_ring);
  EXPECT_EQ(after_forward_, 2048_B + 4096_B + 2048_B + 512_B + 16_B);
  EXPECT_EQ(forward_peak(), 3 * 2048_B + 4 * 4096_B + 4 * 2576_B + 512_B + 2048_B);
}

TEST_F(ContextParallel, TheEnginesGatherPutsKeysInOrder) {
  play(ContextCode::engine_all_gather);
  EXPECT_EQ(after_forward_, 4 * 2048_B + 512_B + 16_B);
  // Keys and values of four ranks, and a copy of one of them in the sequence's order.
  EXPECT_EQ(forward_peak(), 3 * 2048_B + 3 * 8192_B);
}

// In one graph with the layer the partial results wait in 16 bits for the one kernel that merges
// them: q, k, v; all ranks' keys and values; four kernels' results and statistics; the last
// kernel's seed and offset; the result with its statistics.
TEST_F(ContextParallel, CompiledCodeMergesOnce) {
  play(ContextCode::sdpa_all_gather, kRanks, true);
  EXPECT_EQ(after_forward_, 4 * 2048_B + 512_B + 16_B);
  EXPECT_EQ(forward_peak(), 3 * 2048_B + 4 * 4096_B + 4 * (2048_B + 512_B) + 16_B + 2048_B + 512_B);
  ASSERT_EQ(made_.size(), 3u);
  made_.clear();
  EXPECT_EQ(live(), Bytes());
}

TEST_P(ContextParallel, EndsWithThreeGradientsAndNothingElse) {
  for (const std::int64_t ranks : {2, 3, 8}) {
    made_.clear();
    events_.clear();
    play(GetParam(), ranks);
    ASSERT_EQ(made_.size(), 3u);
    for (const Tensor& gradient : made_) EXPECT_EQ(gradient.numel, 1024);
    EXPECT_GT(sent(), Bytes());
    made_.clear();
    EXPECT_EQ(live(), Bytes()) << ranks;
  }
}

// However the keys travel, as many products are computed.
TEST_P(ContextParallel, WorkDoesNotDependOnTheCode) {
  play(GetParam());
  double flops = 0;
  for (const Work& work : program_.work) {
    if (work.kind == WorkKind::attention) flops += work.flops.value();
  }
  // Seven products of 2 x 64 queries x 256 keys x 8 features, 2 operations each.
  EXPECT_DOUBLE_EQ(flops, 7.0 * 2 * 2 * 64 * 256 * 8);
}

INSTANTIATE_TEST_SUITE_P(Codes, ContextParallel,
                         ::testing::Values(ContextCode::sdpa_all_gather, ContextCode::sdpa_ring,
                                           ContextCode::engine_all_gather,
                                           ContextCode::engine_ring));

}  // namespace
}  // namespace steelyard::step
