// Which kernel a framework's "flash" is on a card, and what Transformer Engine copies around it, by
// hand: 2 samples of 4 tokens, 2 heads of 8 in bf16, so q, k and v have 256 B each.
#include "step/attention_backend.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "step/attention_operator.h"
#include "step/primitives.h"

namespace steelyard::step {
namespace {

constexpr std::int64_t kSamples = 2, kTokens = 4, kHeads = 2, kHeadDim = 8;
constexpr std::int64_t kNumel = kSamples * kTokens * kHeads * kHeadDim;

facts::FrameworkProfile profile_of(std::string word) {
  facts::FrameworkProfile profile;
  if (!word.empty()) profile.operators["attention_backend"] = std::move(word);
  return profile;
}

facts::Gpu gpu_of(double capability) {
  facts::Gpu gpu;
  gpu.compute_capability = capability;
  return gpu;
}

facts::Job job_of(facts::Attention attention) {
  facts::Job job;
  job.train.attention = attention;
  return job;
}

TEST(AttentionBackend, AnEngineTakesCudnnFromHopperOn) {
  using facts::Attention;
  EXPECT_TRUE(runs_cudnn(profile_of("engine"), job_of(Attention::flash), gpu_of(9.0)));
  EXPECT_FALSE(runs_cudnn(profile_of("engine"), job_of(Attention::flash), gpu_of(8.0)));
  EXPECT_FALSE(runs_cudnn(profile_of("engine_flash"), job_of(Attention::flash), gpu_of(9.0)));
  EXPECT_FALSE(runs_cudnn(profile_of("engine"), job_of(Attention::math), gpu_of(9.0)));
  EXPECT_TRUE(runs_cudnn(profile_of(""), job_of(Attention::cudnn), gpu_of(8.0)));
  EXPECT_FALSE(runs_cudnn(profile_of(""), job_of(Attention::flash), gpu_of(9.0)));
  facts::Job imported = job_of(Attention::flash);
  imported.megatron.emplace().operators["attention_backend"] = "engine_flash";
  EXPECT_FALSE(runs_cudnn(profile_of("engine"), imported, gpu_of(9.0)));
}

TEST(AttentionBackend, CopiesFollowTheKernel) {
  const auto copies = [](const char* word, facts::Attention attention, double capability) {
    return engine_copies_of(profile_of(word), job_of(attention), gpu_of(capability)).value();
  };
  using facts::Attention;
  EXPECT_EQ(copies("", Attention::flash, 9.0), EngineCopies::none);
  EXPECT_EQ(copies("engine", Attention::flash, 9.0), EngineCopies::pieces);
  EXPECT_EQ(copies("engine", Attention::flash, 8.0), EngineCopies::samples);
  EXPECT_EQ(copies("engine_flash", Attention::flash, 9.0), EngineCopies::samples);
  EXPECT_EQ(copies("engine_flash", Attention::math, 9.0), EngineCopies::pieces);
  const auto wrong = engine_copies_of(profile_of("engines"), job_of(Attention::flash), gpu_of(9.0));
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().found, "engines");
}

class EngineAttention : public ::testing::Test {
 protected:
  EngineAttention() : tape_(program_, options()) {
    op_.attention.heads = op_.attention.kv_heads = kHeads;
    op_.attention.head_dim = kHeadDim;
    tape_.record_to(events_);
  }

  static TapeOptions options() {
    TapeOptions options;
    options.arithmetic.compute = DType::bf16;
    return options;
  }
  Tensor input(std::int64_t numel) {
    Tensor x = tape_.external(numel, DType::bf16);
    x.requires_grad = true;
    return x;
  }
  // The three as a fused projection gives them: pieces of one tensor.
  std::vector<Tensor> pieces(const Tensor& whole) {
    return split(tape_, whole, {kNumel, kNumel, kNumel});
  }
  Tensor attend(std::vector<Tensor> inputs, EngineCopies copies, std::int64_t samples = kSamples) {
    variants_.engine_copies = copies;
    OperatorCall call;
    call.op = &op_;
    call.variants = &variants_;
    for (Tensor& x : inputs) call.inputs.push_back(view(std::move(x), false));  // as heads are
    call.input_shapes.assign(3, {samples, kHeads, kTokens * kSamples / samples, kHeadDim});
    return attention(tape_, call);
  }
  static bool keeps(const Tensor& result, const Tensor& tensor) {
    const auto& saved = result.node->saved;
    return std::find(saved.begin(), saved.end(), tensor.storage) != saved.end();
  }
  [[nodiscard]] int copied() const {
    int count = 0;
    for (const Event& event : events_) {
      if (event.kind != EventKind::allocate) continue;
      const Slot& slot = program_.slots[static_cast<std::size_t>(event.index)];
      if (program_.names[static_cast<std::size_t>(slot.name)].ends_with("clone")) ++count;
    }
    return count;
  }

  Program program_;
  std::vector<Event> events_;
  Tape tape_;
  model::Operator op_;
  Variants variants_;
};

TEST_F(EngineAttention, ThreePiecesOfOneTensorStayThere) {
  const Tensor whole = input(3 * kNumel);
  EXPECT_TRUE(keeps(attend(pieces(whole), EngineCopies::pieces), whole));
  EXPECT_EQ(copied(), 0);
}

TEST_F(EngineAttention, APieceBesideTensorsOfTheirOwnIsCopied) {
  const Tensor whole = input(3 * kNumel);
  const Tensor q = input(kNumel);
  const Tensor k = input(kNumel);
  const Tensor v = pieces(whole)[2];
  EXPECT_TRUE(keeps(attend({q, k, v}, EngineCopies::none), whole));
  EXPECT_EQ(copied(), 0);
  const Tensor y = attend({q, k, v}, EngineCopies::pieces);
  EXPECT_TRUE(keeps(y, q));
  EXPECT_FALSE(keeps(y, whole));
  EXPECT_EQ(copied(), 1);
}

TEST_F(EngineAttention, FlashAttentionReadsSampleBySample) {
  const Tensor q = input(kNumel);
  const Tensor k = input(kNumel);
  const Tensor v = input(kNumel);
  EXPECT_EQ(attend({q, k, v}, EngineCopies::samples).storage->bytes, Bytes(2 * kNumel));
  EXPECT_EQ(copied(), 4);  // the three and the result
  attend({q, k, v}, EngineCopies::samples, 1);
  EXPECT_EQ(copied(), 4);  // one sample lies alike both ways
}

TEST_F(EngineAttention, NormsReadATensorOfTheirOwn) {
  model::Operator norm;
  norm.kind = model::OperatorKind::layer_norm;
  const Tensor whole = input(3 * kNumel);
  OperatorCall call;
  call.op = &norm;
  call.variants = &variants_;
  call.inputs = {pieces(whole)[0]};
  call.input_shapes = {{kNumel / kHeadDim, kHeadDim}};
  call.output_shapes = call.input_shapes;
  call.weights = {input(kHeadDim), input(kHeadDim)};
  EXPECT_TRUE(keeps(run_operator(tape_, call)[0], whole));
  variants_.engine_copies = EngineCopies::pieces;
  EXPECT_FALSE(keeps(run_operator(tape_, call)[0], whole));
}

}  // namespace
}  // namespace steelyard::step
