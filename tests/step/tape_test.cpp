// Lifetimes on the tape, worked by hand: what a few PyTorch statements keep alive, in bytes.
//
// x is [4,8] (32 elements: 128 bytes in fp32, 64 in bf16), a weight [16,8] gives y [4,16].
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "step/primitives.h"

namespace steelyard::step {
namespace {

using namespace literals;

constexpr std::int64_t kRows = 4, kIn = 8, kOut = 16;

class TapeTest : public ::testing::Test {
 protected:
  void start(TapeOptions options = {}) {
    tape_ = std::make_unique<Tape>(program_, options);
    tape_->record_to(events_);
  }
  void start_autocast() {
    TapeOptions options;
    options.arithmetic = {DType::bf16, true, false};
    start(options);
  }
  Tensor activation(DType dtype = DType::fp32) {
    Tensor x = tape_->allocate(kRows * kIn, dtype, "x");
    x.requires_grad = true;
    return x;
  }
  Tensor weight(std::int32_t leaf, bool trains = true) {
    Tensor w = tape_->external(kIn * kOut, DType::fp32);
    w.storage->weight = true;
    w.leaf = leaf;
    w.requires_grad = trains;
    return w;
  }
  Tensor product(const Tensor& x, const Tensor& w) {
    return linear(*tape_, x, w, Tensor(), kIn, kOut);
  }
  // Allocated and not freed, by the events so far.
  Bytes live() const {
    Bytes sum;
    for (const Event& event : events_) {
      const Bytes bytes = program_.slots[static_cast<std::size_t>(event.index)].bytes;
      if (event.kind == EventKind::allocate) sum += bytes;
      if (event.kind == EventKind::free) sum -= bytes;
    }
    return sum;
  }
  const std::string& name_at(const Event& event) const {
    const Slot& slot = program_.slots[static_cast<std::size_t>(event.index)];
    return program_.names[static_cast<std::size_t>(slot.name)];
  }
  std::int64_t allocations(std::string_view name) const {
    return std::count_if(events_.begin(), events_.end(), [&](const Event& event) {
      return event.kind == EventKind::allocate && name_at(event) == name;
    });
  }
  std::int64_t kernels() const {
    return std::count_if(events_.begin(), events_.end(),
                         [](const Event& event) { return event.kind == EventKind::work; });
  }
  // Leaf gradients stay, as .grad does.
  void backward(Tensor root) {
    tape_->leaf_gradient = [this](std::int32_t leaf, Tensor gradient) {
      leaves_.push_back(leaf);
      gradients_.push_back(std::move(gradient));
    };
    tape_->set_backward(true);
    Tensor gradient = tape_->allocate(root.numel, root.dtype, "gradient");
    Tensor handle = root;
    handle.storage.reset();
    root = Tensor();
    tape_->run_backward(handle, std::move(gradient));
  }

  Program program_;
  std::vector<Event> events_;
  std::unique_ptr<Tape> tape_;  // outlives the tensors below
  std::vector<std::int32_t> leaves_;
  std::vector<Tensor> gradients_;
};

TEST_F(TapeTest, LinearSavesItsInputAndTheWeight) {
  start();
  Tensor x = activation();
  const Tensor w = weight(0);
  Tensor y = product(x, w);
  EXPECT_EQ(y.node->saved, (std::vector<StorageRef>{x.storage, w.storage}));
  x = Tensor();
  EXPECT_EQ(live(), 384_B);  // x, held by the node: 128; y: 4 x 16 x 4
  y = Tensor();
  EXPECT_EQ(live(), 0_B);  // the graph went with its last handle; the weight was never an event
}

TEST_F(TapeTest, AFrozenWeightNeedsNoInput) {
  start();
  Tensor x = activation();
  const Tensor y = product(x, weight(0, false));
  x = Tensor();
  EXPECT_EQ(live(), 256_B);  // y alone
  EXPECT_TRUE(y.requires_grad);
  EXPECT_EQ(y.node->saved.size(), 1u);  // the weight, for the input's gradient
}

TEST_F(TapeTest, AnInputWithoutGradientNeedsNoWeight) {
  start();
  Tensor x = activation();
  x.requires_grad = false;
  const Tensor y = product(x, weight(0));
  EXPECT_EQ(y.node->saved, std::vector<StorageRef>{x.storage});
}

TEST_F(TapeTest, NothingIsSavedWithoutGradients) {
  start();
  tape_->set_grad_enabled(false);
  Tensor x = activation();
  const Tensor y = product(x, weight(0));
  x = Tensor();
  EXPECT_EQ(live(), 256_B);
  EXPECT_FALSE(y.requires_grad);
}

TEST_F(TapeTest, TwoConsumersShareOneSavedStorage) {
  start();
  Tensor x = activation();
  Tensor a = product(x, weight(0));
  Tensor b = product(x, weight(1));
  x = Tensor();
  EXPECT_EQ(live(), 640_B);  // x once: 128; a, b: 256 each
  a = Tensor();
  EXPECT_EQ(live(), 384_B);  // b's node still holds x
  b = Tensor();
  EXPECT_EQ(live(), 0_B);
}

TEST_F(TapeTest, AutocastCastsAnActivationPerConsumerAndAWeightOnce) {
  start_autocast();
  Tensor x = activation();
  const Tensor w = weight(0);
  const Tensor a = product(x, w);
  const Tensor b = product(x, w);
  EXPECT_EQ(allocations("to"), 2);
  EXPECT_EQ(allocations("cast_weight"), 1);
  x = Tensor();
  // Casts of x: 2 x 64; the weight's: 8 x 16 x 2 = 256; a, b in bf16: 2 x 128. x itself is gone.
  EXPECT_EQ(live(), 640_B);
  tape_->clear_casts();
  EXPECT_EQ(live(), 640_B);  // the nodes saved the weight's cast
}

TEST_F(TapeTest, TheCacheOfCastsHoldsTrainedLeavesUntilAutocastEnds) {
  start_autocast();
  Tensor x = activation(DType::bf16);
  x.requires_grad = false;  // so no node saves the weight's cast
  const Tensor y = product(x, weight(0));
  EXPECT_EQ(live(), 448_B);  // x 64, cast 256, y 128
  tape_->clear_casts();
  EXPECT_EQ(live(), 192_B);
}

TEST_F(TapeTest, AFrozenWeightIsCastAtEachUse) {
  start_autocast();
  const Tensor x = activation(DType::bf16);
  const Tensor w = weight(0, false);
  const Tensor a = product(x, w);
  const Tensor b = product(x, w);
  EXPECT_EQ(allocations("cast_weight"), 2);
}

TEST_F(TapeTest, DropoutKeepsOneBytePerElement) {
  start();
  Tensor x = activation();
  Tensor y = dropout(*tape_, x, 0.1);
  x = Tensor();
  EXPECT_EQ(live(), 160_B);  // y 128, mask 32 x 1
  y = Tensor();
  EXPECT_EQ(live(), 0_B);
}

TEST_F(TapeTest, DropoutOfProbabilityZeroIsTheTensorItself) {
  start();
  const Tensor x = activation();
  EXPECT_EQ(dropout(*tape_, x, 0.0).storage, x.storage);
  EXPECT_EQ(kernels(), 0);
}

TEST_F(TapeTest, ReluSavesItsOutputAndGeluItsInput) {
  start();
  Tensor x = activation();
  const Tensor r = relu(*tape_, x);
  EXPECT_EQ(r.node->saved, std::vector<StorageRef>{r.storage});
  const Tensor g = gelu(*tape_, x);
  EXPECT_EQ(g.node->saved, std::vector<StorageRef>{x.storage});
}

TEST_F(TapeTest, AMultiplicationSavesTheOperandThatTheOtherNeeds) {
  start();
  const Tensor a = activation();
  Tensor b = activation();
  b.requires_grad = false;
  EXPECT_EQ(mul(*tape_, a, b).node->saved, std::vector<StorageRef>{b.storage});
  b.requires_grad = true;
  EXPECT_EQ(mul(*tape_, a, b).node->saved.size(), 2u);
}

TEST_F(TapeTest, PartsOfASplitAreViewsOfOneStorage) {
  start();
  Tensor x = activation();
  std::vector<Tensor> parts = split(*tape_, x, {16, 16});
  EXPECT_EQ(live(), 128_B);
  const StorageRef whole = x.storage;
  EXPECT_EQ(parts[0].storage, whole);
  EXPECT_EQ(parts[1].storage, whole);
  EXPECT_EQ(parts[0].node, parts[1].node);
}

// x0 -> x -> two branches -> their sum: the branches' gradients meet at x.
class MeetingGradients : public TapeTest {
 protected:
  std::int64_t sums(bool in_place) {
    TapeOptions options;
    options.sum_in_place = in_place;
    start(options);
    Tensor z;
    {
      const Tensor x = relu(*tape_, activation());
      z = add(*tape_, relu(*tape_, x), relu(*tape_, x));
    }
    backward(std::exchange(z, Tensor()));
    return allocations("add_gradients");
  }
};

TEST_F(MeetingGradients, AreSummedInPlaceWhenNobodyElseHoldsTheFirst) {
  EXPECT_EQ(sums(true), 0);
  EXPECT_EQ(live(), 0_B);
}
TEST_F(MeetingGradients, AreSummedIntoANewTensorForTensorSubclasses) {
  EXPECT_EQ(sums(false), 1);
  EXPECT_EQ(live(), 0_B);
}

TEST_F(TapeTest, AGradientThatIsStillHeldIsNotSummedIntoInPlace) {
  start();
  Tensor z;
  {
    const Tensor x = relu(*tape_, activation());
    z = add(*tape_, x, x);  // both gradients are the one gradient of z
  }
  backward(std::exchange(z, Tensor()));
  EXPECT_EQ(allocations("add_gradients"), 1);
}

// y = x W0, z = relu(y) W1 backwards, fp32: at the end the two weights' gradients are left.
TEST_F(TapeTest, BackwardFreesWhatWasSavedAndLeavesTheLeavesGradients) {
  start();
  const Tensor w = weight(1);  // as many elements, used as [8,16]
  Tensor z;
  {
    Tensor x = activation();
    x.requires_grad = false;  // the first layer's input wants no gradient
    Tensor y = product(x, weight(0));
    y = relu(*tape_, y);
    z = linear(*tape_, y, w, Tensor(), kOut, kIn);
  }
  // x 128 and relu's result 256, which relu and the second product share, and z 128; y itself is
  // gone.
  EXPECT_EQ(live(), 512_B);
  backward(std::exchange(z, Tensor()));
  EXPECT_EQ(leaves_, (std::vector<std::int32_t>{1, 0}));  // the last layer's first
  EXPECT_EQ(live(), 1024_B);                              // 2 x 8 x 16 x 4
}

TEST_F(TapeTest, AWeightsGradientUnderAutocastArrivesInTheWeightsType) {
  start_autocast();
  Tensor y = product(activation(), weight(0));
  tape_->clear_casts();
  backward(std::exchange(y, Tensor()));
  ASSERT_EQ(gradients_.size(), 1u);
  EXPECT_EQ(gradients_[0].dtype, DType::fp32);
  EXPECT_EQ(live(), 512_B);
}

TEST_F(TapeTest, RecomputationStopsBehindTheLastSavedTensor) {
  start();
  const Tensor x = activation();
  const std::size_t first = events_.size();
  Tensor y = relu(*tape_, x);    // saves its result: allocate and work stay
  Tensor z = add(*tape_, y, x);  // saves nothing: never computed again
  EXPECT_EQ(events_.size(), first + 4);
  tape_->stop_early(first);
  ASSERT_EQ(events_.size(), first + 2);
  EXPECT_EQ(name_at(events_[first]), "relu");
  z.storage->external = y.storage->external = true;  // z was never born: no free event
}

TEST_F(TapeTest, RecomputationStopsBeforeAnOperationThatSavesOnlyItsInputs) {
  start();
  const Tensor x = activation();
  const std::size_t first = events_.size();
  Tensor y = add_constant(*tape_, x);
  Tensor z = product(y, weight(0));  // saves y, which exists before it runs
  tape_->stop_early(first);
  ASSERT_EQ(events_.size(), first + 2);
  EXPECT_EQ(name_at(events_[first]), "add");
  z.storage->external = true;
}

TEST_F(TapeTest, FreesBehindTheStopStay) {
  start();
  const Tensor x = activation();
  const std::size_t first = events_.size();
  Tensor y = add_constant(*tape_, x);
  Tensor z = relu(*tape_, y);
  Tensor after = add_constant(*tape_, z);
  y = Tensor();      // nobody saved it: freed behind the stop, but born before it
  after = Tensor();  // born behind the stop: neither its birth nor its death remain
  tape_->stop_early(first);
  EXPECT_EQ(live(), 256_B);  // x and z
  EXPECT_EQ(events_.back().kind, EventKind::free);
}

TEST_F(TapeTest, WorkSaysItsSizesItsDirectionAndItsName) {
  start();
  tape_->enter("self_attn.q_proj");
  Tensor y = product(activation(), weight(0));
  tape_->enter("");
  const Work forward = program_.work.back();
  EXPECT_EQ(forward.kind, WorkKind::gemm);
  EXPECT_EQ(forward.m, kRows);
  EXPECT_EQ(forward.n, kOut);
  EXPECT_EQ(forward.k, kIn);
  EXPECT_EQ(forward.flops, Flops(1024.0));  // 2 x 4 x 16 x 8
  EXPECT_FALSE(forward.backward);
  EXPECT_EQ(program_.names[static_cast<std::size_t>(forward.name)], "self_attn.q_proj: mm");
  backward(std::exchange(y, Tensor()));
  const Work last = program_.work.back();  // the input's gradient [4,8], depth 16
  EXPECT_TRUE(last.backward);
  EXPECT_EQ(last.m, kRows);
  EXPECT_EQ(last.n, kIn);
  EXPECT_EQ(last.k, kOut);
  EXPECT_EQ(allocations("self_attn.q_proj: mm_weight_gradient"), 1);
}

TEST_F(TapeTest, FlashAttentionKeepsOneStatisticPerQueryAndTwoScalars) {
  start();
  AttentionDims dims;
  dims.samples = 2;
  dims.heads = dims.kv_heads = 3;
  dims.queries = dims.keys = 10;
  dims.head_dim = 8;
  const auto tensor = [&] {
    Tensor t = tape_->allocate(480, DType::bf16, "q");  // 2 x 3 x 10 x 8
    t.requires_grad = true;
    return t;
  };
  Tensor y = fused_attention(*tape_, tensor(), tensor(), tensor(), dims, false);
  // q, k, v, result: 4 x 960; log-sum-exp: 2 x 3 x 10 x 4; seed and offset: 2 x 8.
  EXPECT_EQ(live(), 4096_B);
  y = Tensor();
  EXPECT_EQ(live(), 0_B);
  Tensor e = fused_attention(*tape_, tensor(), tensor(), tensor(), dims, true);
  EXPECT_EQ(live(), 4624_B);  // statistics of 32 queries instead of 10: 2 x 3 x 32 x 4 = 768
}

}  // namespace
}  // namespace steelyard::step
