// Linears in fp8, worked by hand: x is [32,64] in bf16 (2048 elements: 4096 bytes), a weight
// [48,64] (3072 elements), y [32,48] (3072 bytes in bf16).
#include "step/fp8.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "step/fp8_casts.h"
#include "step/player.h"
#include "step/primitives.h"
#include "step/primitives_fp8.h"

namespace steelyard::step {
namespace {

using namespace literals;
using facts::Fp8Recipe;
using facts::Job;
using facts::Precision;
using facts::Sharding;

constexpr std::int64_t kRows = 32, kIn = 64, kOut = 48;

class Fp8Tape : public ::testing::Test {
 protected:
  void start(const Fp8& fp8, bool compiled = false) {
    TapeOptions options;
    options.arithmetic.compute = DType::bf16;
    options.arithmetic.fp8 = fp8;
    options.compiled = compiled;
    tape_ = std::make_unique<Tape>(program_, options);
    tape_->record_to(events_);
  }
  Tensor activation() {
    Tensor x = tape_->allocate(kRows * kIn, DType::bf16, "x");
    tape_->materialise(x);
    x.requires_grad = true;
    return x;
  }
  Tensor weight(DType dtype = DType::bf16) {
    Tensor w = tape_->external(kIn * kOut, dtype);
    w.storage->weight = true;
    w.leaf = 0;
    w.requires_grad = true;
    return w;
  }
  Tensor product(const Tensor& x, const Tensor& w, bool keeps_input = false) {
    Tensor y = fp8_linear(*tape_, x, w, Tensor(), kIn, kOut, keeps_input);
    tape_->end_operation();
    return y;
  }
  void backward(Tensor root) {
    tape_->leaf_gradient = [this](std::int32_t, Tensor gradient) {
      gradients_.push_back(std::move(gradient));
    };
    Tensor gradient = tape_->allocate(root.numel, root.dtype, "gradient");
    tape_->materialise(gradient);
    Tensor handle = root;
    handle.storage.reset();
    root = Tensor();
    tape_->run_backward(handle, std::move(gradient));
  }
  // Allocated and not freed: now, and at most since `from`.
  [[nodiscard]] std::pair<Bytes, Bytes> live(std::size_t from = 0) const {
    Bytes sum, most;
    for (std::size_t i = 0; i < events_.size(); ++i) {
      const Event& event = events_[i];
      const bool slot = event.kind == EventKind::allocate || event.kind == EventKind::free;
      if (!slot) continue;
      const Bytes bytes = program_.slots[static_cast<std::size_t>(event.index)].bytes;
      event.kind == EventKind::allocate ? sum += bytes : sum -= bytes;
      if (i >= from) most = std::max(most, sum);
    }
    return {sum, most};
  }
  [[nodiscard]] std::int64_t products_in(DType dtype) const {
    return std::count_if(program_.work.begin(), program_.work.end(), [&](const Work& work) {
      return work.kind == WorkKind::gemm && work.dtype == dtype;
    });
  }

  Program program_;
  std::vector<Event> events_;
  std::unique_ptr<Tape> tape_;  // outlives the tensors below
  std::vector<Tensor> gradients_;
};

Fp8 torchao() {
  Fp8 fp8;
  fp8.library = Fp8Library::torchao;
  return fp8;
}

Fp8 engine(Fp8Scaling scaling, bool two_layouts, bool caches) {
  Fp8 fp8;
  fp8.library = Fp8Library::transformer_engine;
  fp8.scaling = scaling;
  fp8.two_layouts = two_layouts;
  fp8.caches_weights = caches;
  return fp8;
}

// Eager torchao: both casts go with the call; the operands are kept as they came. The peak is the
// weight's cast: x 4096, its cast 2048 and scale 4, the weight's scale 4, then two of 3 x 4 bytes
// per element at a time: scaled 12288, clamped 12288, and the result 3072.
TEST_F(Fp8Tape, EagerCastsAreTemporaries) {
  start(torchao());
  Tensor x = activation();
  const Tensor w = weight();
  const Tensor y = product(x, w);
  const auto [now, most] = live();
  EXPECT_EQ(now, Bytes(4096 + 3072));
  EXPECT_EQ(most, Bytes(4096 + 2048 + 4 + 4 + 12288 + 12288 + 3072));
  EXPECT_EQ(y.node->saved, (std::vector<StorageRef>{x.storage, w.storage}));
  EXPECT_EQ(products_in(DType::fp8), 1);
}

// Backward holds until it returns: gradient cast 1536 twice with its scale, the weight's cast 3072,
// dx 4096, x's cast 2048. At the weight's gradient besides: both transposed copies 1536 + 2048 and
// dw 6144; x 4096 and dy 3072 are there anyway. The casts of the weight peak lower: 12288 + 12288 +
// 3072 over dy, x, 1536 + 4 and 4.
TEST_F(Fp8Tape, EagerBackwardCastsAgain) {
  start(torchao());
  Tensor x = activation();
  Tensor y = product(x, weight());
  x = Tensor();
  const std::size_t from = events_.size();
  backward(std::exchange(y, Tensor()));
  const std::int64_t held = 4096 + 3072;
  const std::int64_t product = 2 * (1536 + 4) + 3072 + 4 + 4096 + 2048 + 4 + 1536 + 2048 + 6144;
  const std::int64_t cast = 1536 + 4 + 4 + 12288 + 12288 + 3072;
  const std::int64_t x_cast = 2 * (1536 + 4) + 3072 + 4 + 4096 + 4 + 8192 + 8192 + 2048;
  EXPECT_EQ(live(from).second, Bytes(held + std::max({product, cast, x_cast})));
  EXPECT_EQ(live().first, Bytes(6144));  // the weight's gradient, bf16; dx went nowhere
  EXPECT_EQ(products_in(DType::fp8), 3);
}

// As AOTAutograd's partitioner decides (torch 2.6, torchao 0.8): x, which exists, and the weight's
// cast, smaller than the weight; scales are reductions, which are kept.
TEST_F(Fp8Tape, CompiledKeepsTheWeightsCast) {
  start(torchao(), true);
  Tensor x = activation();
  Tensor y = product(x, weight());
  ASSERT_EQ(y.node->saved.size(), 2u);
  EXPECT_EQ(y.node->saved[0], x.storage);
  EXPECT_EQ(y.node->saved[1]->bytes, Bytes(3072));
  EXPECT_FALSE(y.node->saved[1]->pending);
  // Two linears that read x cast it once.
  const std::size_t slots = program_.slots.size();
  const Tensor second = product(x, weight());
  EXPECT_LT(program_.slots.size() - slots, slots);
}

TEST_F(Fp8Tape, AWeightGatheredInFp8IsNotCast) {
  start(torchao());
  Tensor x = activation();
  const Tensor w = weight(DType::fp8);
  Tensor y = product(x, w);
  // x 4096, scale 4, scaled 8192, clamped 8192, cast 2048.
  EXPECT_EQ(live().second, Bytes(4096 + 4 + 8192 + 8192 + 2048));
  x = Tensor();
  backward(std::exchange(y, Tensor()));
  ASSERT_EQ(gradients_.size(), 1u);
  EXPECT_EQ(gradients_[0].dtype, DType::bf16);
}

struct Kept {
  Fp8Scaling scaling;
  bool two_layouts, caches;
  std::int64_t bytes;  // beside y, when x itself is gone
};

class EngineKeeps : public Fp8Tape, public ::testing::WithParamInterface<Kept> {};

TEST_P(EngineKeeps, OneLayoutOfTheInputAndTheWeightsCast) {
  const Kept& expected = GetParam();
  start(engine(expected.scaling, expected.two_layouts, expected.caches));
  Tensor x = activation();
  Tensor y = product(x, weight());
  x = Tensor();
  EXPECT_EQ(live().first, Bytes(3072 + expected.bytes));
  backward(std::exchange(y, Tensor()));
  EXPECT_EQ(live().first, Bytes(6144));
  EXPECT_EQ(products_in(DType::fp8), 3);
}

// One scale: 2048 + 4. Per 128 elements: 2048 / 128 x 4 = 64; a weight's 128 x 128: one. Per 32
// elements a byte: 64, of the weight 96. Of a weight both layouts are kept where there are two.
INSTANTIATE_TEST_SUITE_P(Recipes, EngineKeeps,
                         ::testing::Values(Kept{Fp8Scaling::tensor, true, true, 2052},
                                           Kept{Fp8Scaling::tensor, true, false, 2052 + 2 * 3076},
                                           Kept{Fp8Scaling::tensor, false, false, 2052 + 3076},
                                           Kept{Fp8Scaling::block, true, false, 2112 + 2 * 3076},
                                           Kept{Fp8Scaling::microscale, true, true, 2112},
                                           Kept{Fp8Scaling::microscale, true, false,
                                                2112 + 2 * 3168}));

TEST_F(Fp8Tape, AttentionsResultIsKeptAsItCame) {
  start(engine(Fp8Scaling::tensor, true, true));
  Tensor x = activation();
  const Tensor y = product(x, weight(), true);
  EXPECT_EQ(y.node->saved, std::vector<StorageRef>{x.storage});
  EXPECT_EQ(live().first, Bytes(4096 + 3072));
}

// q, k and v of one sample, 2 heads of 16 elements over 32 tokens: 1024 elements, rows and columns
// of 1024 bytes and 32 scales each, beside the result and the statistics that 16 bits keep too.
TEST_F(Fp8Tape, AttentionKeepsItsOperandsAsTheyWereCast) {
  const AttentionDims dims{.heads = 2, .kv_heads = 2, .head_dim = 16, .queries = 32, .keys = 32};
  const auto kept = [&](bool casts) {
    Fp8 fp8 = engine(Fp8Scaling::microscale, true, true);
    fp8.attention = casts;
    program_ = Program();
    events_.clear();
    start(fp8);
    const auto operand = [&] {
      Tensor x = tape_->allocate(1024, DType::bf16, "x");
      tape_->materialise(x);
      x.requires_grad = true;
      return x;
    };
    Tensor y = fused_attention(*tape_, operand(), operand(), operand(), dims, false);
    tape_->end_operation();
    const Bytes live_now = live().first;
    backward(std::exchange(y, Tensor()));
    return live_now;
  };
  const Bytes wide = kept(false);
  EXPECT_EQ(std::count_if(program_.work.begin(), program_.work.end(),
                          [](const Work& work) { return work.dtype == DType::fp8; }),
            0);
  EXPECT_EQ(kept(true) - wide, Bytes(3 * (2 * (1024 + 32) - 2 * 1024)));
  const auto attention =
      std::count_if(program_.work.begin(), program_.work.end(), [](const Work& work) {
        return work.kind == WorkKind::attention && work.dtype == DType::fp8;
      });
  EXPECT_EQ(attention, 2);  // forward and backward
}

// A window that leaves a quarter of the scores of a causal kernel: forward two products of them,
// backward five, in fp8 of all.
TEST_F(Fp8Tape, AttentionInFp8SkipsNoWindowBackward) {
  AttentionDims dims{.heads = 2, .kv_heads = 2, .head_dim = 16, .queries = 32, .keys = 32};
  dims.computed_share = 0.125;
  dims.whole_share = 0.5;
  const auto backward_over_forward = [&](bool casts) {
    Fp8 fp8 = engine(Fp8Scaling::microscale, true, true);
    fp8.attention = casts;
    program_ = Program();
    events_.clear();
    start(fp8);
    Tensor q = tape_->allocate(1024, DType::bf16, "q");
    tape_->materialise(q);
    q.requires_grad = true;
    Tensor y = fused_attention(*tape_, q, q, q, dims, false);
    tape_->end_operation();
    backward(std::exchange(y, Tensor()));
    std::vector<double> flops;  // forward, backward
    for (const Work& work : program_.work) {
      if (work.kind == WorkKind::attention) flops.push_back(work.flops.value());
    }
    EXPECT_EQ(flops.size(), 2U);
    return flops.back() / flops.front();
  };
  EXPECT_DOUBLE_EQ(backward_over_forward(false), 2.5);
  EXPECT_DOUBLE_EQ(backward_over_forward(true), 10.0);
}

TEST_F(Fp8Tape, RowsOfExpertsAreCastExpertByExpert) {
  const auto casts = [&](bool together) {
    Fp8 fp8 = engine(Fp8Scaling::microscale, true, true);
    fp8.casts_together = together;
    program_ = Program();
    events_.clear();
    start(fp8);
    const std::vector<Tensor> weights = {weight(), weight(), weight(), weight()};
    Tensor y = fp8_grouped_linear(*tape_, activation(), weights, kIn, kOut);
    tape_->end_operation();
    std::int64_t launched = 0;
    for (const Work& work : program_.work) {
      if (work.kind == WorkKind::memory) launched += work.batch;
    }
    return launched;
  };
  EXPECT_EQ(casts(true), 1);
  EXPECT_EQ(casts(false), 4);
}

// Tokens of four ranks: 8 rows each, sent as fp8. The own part (512 bytes and a scale) is kept, and
// all of them are gathered again.
TEST_F(Fp8Tape, TokensTravelInFp8) {
  TapeOptions options;
  options.arithmetic.compute = DType::bf16;
  options.arithmetic.fp8 = engine(Fp8Scaling::tensor, true, true);
  options.tensor = {4, 4};
  tape_ = std::make_unique<Tape>(program_, options);
  tape_->record_to(events_);
  Tensor part = tape_->allocate(kRows * kIn / 4, DType::bf16, "x");
  part.requires_grad = true;
  Tensor all = gather_sequence(*tape_, part, kRows * kIn, true);
  EXPECT_TRUE(all.quantized);
  EXPECT_EQ(all.storage->bytes, Bytes(2048));
  EXPECT_EQ(program_.communication.back().payload, Bytes(2048));
  Tensor y = product(all, weight());
  part = all = Tensor();
  EXPECT_EQ(live().first, Bytes(3072 + 512 + 4));
  backward(std::exchange(y, Tensor()));
  EXPECT_EQ(live().first, Bytes(6144));
}

// --- What a job may ask for --------------------------------------------------------------------

facts::Gpu gpu(const char* name, double capability) {
  facts::Gpu made;
  made.name = name;
  made.compute_capability = capability;
  return made;
}

Job fp8_job(Precision precision = Precision::fp8_mixed) {
  Job job = small_job(4);
  job.train.precision = precision;
  return job;
}

TEST(Fp8, GpusWithoutItAreRefusedByName) {
  const facts::FrameworkProfile profile = profile_of("pytorch");
  const auto old = fp8_of(fp8_job(), profile, gpu("A100 SXM", 8.0));
  ASSERT_FALSE(old);
  EXPECT_EQ(old.error().subject, "train.precision");
  EXPECT_EQ(old.error().found, "fp8-mixed on A100 SXM");
  EXPECT_TRUE(fp8_of(fp8_job(), profile, gpu("RTX 4090", 8.9)));
  EXPECT_FALSE(fp8_of(fp8_job(Precision::mxfp8_mixed), profile, gpu("H100", 9.0)));
  EXPECT_TRUE(fp8_of(fp8_job(Precision::mxfp8_mixed), profile, gpu("B200", 10.0)));
  facts::Gpu other = gpu("MI250", 0);
  other.compute_capability.reset();
  EXPECT_FALSE(fp8_of(fp8_job(), profile, other));
}

TEST(Fp8, TheGpuDecidesOnLayouts) {
  const facts::FrameworkProfile profile = profile_of("megatron");
  const auto hopper = fp8_of(fp8_job(), profile, gpu("H100", 9.0));
  const auto blackwell = fp8_of(fp8_job(), profile, gpu("B200", 10.0));
  const auto micro = fp8_of(fp8_job(Precision::mxfp8_mixed), profile, gpu("B200", 10.0));
  ASSERT_TRUE(hopper && blackwell && micro);
  EXPECT_TRUE(hopper->two_layouts);
  EXPECT_FALSE(blackwell->two_layouts);
  EXPECT_TRUE(micro->two_layouts);  // scales lie along one dimension
}

TEST(Fp8, WhatDoesNotGoTogetherIsRefused) {
  const facts::FrameworkProfile pytorch = profile_of("pytorch");
  const facts::FrameworkProfile megatron = profile_of("megatron");
  const auto subject = [](const Job& job, const facts::FrameworkProfile& profile) {
    const auto made = fp8_of(job, profile, {});
    return made ? std::string("accepted") : made.error().subject;
  };
  Job job = fp8_job();
  job.train.fp8 = facts::Fp8Keys{Fp8Recipe::blockwise, false};
  EXPECT_EQ(subject(job, pytorch), "train.fp8.recipe");
  EXPECT_EQ(subject(job, megatron), "accepted");
  job.train.fp8 = facts::Fp8Keys{Fp8Recipe::rowwise, false};
  EXPECT_EQ(subject(job, pytorch), "accepted");
  EXPECT_EQ(subject(job, megatron), "train.fp8.recipe");
  job.train.fp8->all_gather = true;
  EXPECT_EQ(subject(job, pytorch), "train.fp8.all_gather");
  job.train.fp8->recipe = Fp8Recipe::tensorwise;
  EXPECT_EQ(subject(job, pytorch), "train.fp8.all_gather");  // nothing is gathered
  job.parallel.sharding = Sharding::fsdp;
  EXPECT_EQ(subject(job, pytorch), "accepted");
  EXPECT_EQ(subject(job, megatron), "train.fp8.all_gather");  // no master weights
  job.train.precision = Precision::bf16_mixed;
  EXPECT_EQ(subject(job, pytorch), "train.fp8");
}

// --- Whole steps -----------------------------------------------------------------------------

Bytes setup_bytes(const Program& program) {
  Bytes sum;
  play(program, program.setup, [&](const Event& event, std::int64_t) {
    if (event.kind == EventKind::allocate) {
      sum += program.slots[static_cast<std::size_t>(event.index)].bytes;
    }
  });
  return sum;
}

// A layer of the small llama: q, o 64 x 64, k, v 32 x 64, gate, up, down 160 x 64: 43,008 elements;
// three layers, two layouts with one scale each of 7 matrices.
TEST(Fp8, CachedCastsLastAsLongAsTheJob) {
  const model::Graph graph = graph_of(small_llama());
  const facts::FrameworkProfile profile = profile_of("megatron");
  Job job = small_job();
  const Bytes before = setup_bytes(program_for(graph, job, profile));
  job.train.precision = Precision::fp8_mixed;
  const Bytes after = setup_bytes(program_for(graph, job, profile));
  EXPECT_EQ(after - before, Bytes(3 * 2 * (43'008 + 7 * 4)));
}

// The largest gathered unit is a layer: 43,008 matrix elements and two norms of 64. Two bytes each
// in bf16; in fp8 one byte of the matrices.
TEST(Fp8, ParametersAreGatheredInFp8) {
  const model::Graph graph = graph_of(small_llama());
  const facts::FrameworkProfile profile = profile_of("torchtitan");
  Job job = fp8_job();
  job.parallel.sharding = Sharding::fsdp;
  const auto gathers = [&](const Job& given, Bytes wanted) {
    const Program program = program_for(graph, given, profile);
    return std::any_of(program.slots.begin(), program.slots.end(), [&](const Slot& slot) {
      return slot.bytes == wanted &&
             program.names[static_cast<std::size_t>(slot.name)] == "gathered parameters";
    });
  };
  job.train.fp8 = facts::Fp8Keys{Fp8Recipe::tensorwise, false};
  EXPECT_TRUE(gathers(job, Bytes(2 * (43'008 + 128))));
  job.train.fp8->all_gather = true;
  EXPECT_TRUE(gathers(job, Bytes(43'008 + 2 * 128)));
}

TEST(Fp8, RandomStepsLeaveBehindWhatTheyFound) {
  std::mt19937 random(20);
  const auto pick = [&](std::initializer_list<int> list) {
    return *(list.begin() + static_cast<std::ptrdiff_t>(random() % list.size()));
  };
  const model::Graph graph = graph_of(small_llama());
  for (int i = 0; i < 200; ++i) {
    const bool engine_runs = random() % 2 == 0;
    const char* const framework = engine_runs ? "megatron" : "torchtitan";
    Job job = fp8_job(random() % 3 == 0 ? Precision::mxfp8_mixed : Precision::fp8_mixed);
    job.train.recompute.mode = static_cast<facts::RecomputeMode>(pick({0, 1, 2, 3}));
    job.train.compile = !engine_runs && random() % 2 == 0;
    job.parallel.sharding = random() % 2 == 0 ? Sharding::none : Sharding::fsdp;
    job.train.gradient_accumulation = pick({1, 3});
    if (random() % 2 == 0) {
      job.parallel.tensor = 2;
      job.parallel.data = 2;
      job.parallel.sequence_parallel = random() % 2 == 0;
    }
    const int recipe = engine_runs ? pick({0, 1, 3}) : pick({0, 1, 2});
    job.train.fp8 = facts::Fp8Keys{static_cast<Fp8Recipe>(recipe), false};
    const bool tensorwise = job.train.precision == Precision::fp8_mixed && recipe < 2;
    job.train.fp8->all_gather =
        !engine_runs && tensorwise && job.parallel.sharding == Sharding::fsdp && random() % 2 == 0;
    if (random() % 4 == 0) job.offload.activations = facts::OffloadTo::cpu;
    expect_balanced(program_for(graph, job, profile_of(framework)), "job " + std::to_string(i));
  }
}

}  // namespace
}  // namespace steelyard::step
