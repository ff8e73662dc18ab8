// Every program of a grid of jobs, played: what is freed was allocated, nothing is allocated twice
// or freed twice, and a step leaves behind what it found.
#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <string>
#include <utility>

#include "step/player.h"
#include "step/small_jobs.h"

namespace steelyard::step {
namespace {

using facts::OptimizerName;
using facts::Sharding;

struct Optimizer {
  const char* text;
  OptimizerName name;
  std::optional<bool> fused, foreach;
};
const Optimizer kOptimizers[] = {
    {"adamw", OptimizerName::adamw, {}, {}},
    {"adamw fused", OptimizerName::adamw, true, {}},
    {"adamw loop", OptimizerName::adamw, {}, false},
    {"adamw8bit", OptimizerName::adamw8bit, {}, {}},
    {"adamw4bit", OptimizerName::adamw4bit, {}, {}},
    {"paged-adamw", OptimizerName::paged_adamw, {}, {}},
    {"adafactor", OptimizerName::adafactor, {}, {}},
    {"muon", OptimizerName::muon, {}, {}},
    {"sgd", OptimizerName::sgd, {}, {}},
};

void recomputing(facts::Job& job, facts::FrameworkProfile& profile, bool recompute) {
  profile.dropout = true;
  if (recompute) job.train.recompute.mode = facts::RecomputeMode::full;
}

class Lifetimes : public ::testing::TestWithParam<Sharding> {
 protected:
  void check_all(const model::Graph& graph, facts::FrameworkProfile profile) {
    for (const Optimizer& optimizer : kOptimizers) {
      for (const bool recompute : {false, true}) {
        for (const std::int64_t accumulation : {1, 4}) {
          facts::Job job = small_job(4);
          job.parallel.sharding = GetParam();
          if (GetParam() == Sharding::hsdp) job.parallel.shard_group = 2;
          job.train.optimizer.name = optimizer.name;
          job.train.optimizer.fused = optimizer.fused;
          job.train.optimizer.foreach = optimizer.foreach;
          job.train.gradient_accumulation = accumulation;
          recomputing(job, profile, recompute);
          const std::string what = graph.name + ", " + profile.name + ", " + optimizer.text +
                                   (recompute ? ", recomputed" : "") + ", micro-batches " +
                                   std::to_string(accumulation);
          expect_balanced(program_for(graph, job, profile), what);
        }
      }
    }
  }
};

TEST_P(Lifetimes, StepsLeaveBehindWhatTheyFound) {
  for (const facts::ModelSource& source : {small_llama(), small_gpt2()}) {
    check_all(graph_of(source), profile_of("pytorch"));
  }
}

// Gradients that zero_grad fills with zeros instead of freeing them exist from the start.
TEST_P(Lifetimes, AlsoWhereGradientsAreZeroedInstead) {
  facts::FrameworkProfile profile = profile_of("transformers");
  profile.gradients_set_to_none = false;
  check_all(graph_of(small_gpt2()), profile);
}

// Every precision and attention once more, with the other keys at their defaults.
TEST_P(Lifetimes, AlsoForEveryPrecisionAndAttention) {
  using facts::Precision;
  facts::FrameworkProfile profile = profile_of("pytorch");
  for (const facts::ModelSource& source : {small_llama(), small_gpt2()}) {
    const model::Graph graph = graph_of(source);
    for (const Precision precision : {Precision::fp32, Precision::tf32, Precision::fp16_mixed,
                                      Precision::bf16_mixed, Precision::bf16, Precision::fp16}) {
      for (const auto attention :
           {facts::Attention::flash, facts::Attention::efficient, facts::Attention::math}) {
        for (const bool recompute : {false, true}) {
          facts::Job job = small_job(4);
          job.parallel.sharding = GetParam();
          job.train.precision = precision;
          job.train.attention = attention;
          job.train.gradient_accumulation = 2;
          recomputing(job, profile, recompute);
          const std::string what = graph.name + ", " + std::string(facts::name_of(precision)) +
                                   ", " + std::string(facts::name_of(attention)) +
                                   (recompute ? ", recomputed" : "");
          expect_balanced(program_for(graph, job, profile), what);
        }
      }
    }
  }
}

// Every family's layers, by one small catalogue model each.
TEST(Families, StepsLeaveBehindWhatTheyFound) {
  const auto catalog =
      catalog::Catalog::at(std::filesystem::path(STEELYARD_SOURCE_DIR) / "catalog");
  facts::FrameworkProfile profile = profile_of("pytorch");
  for (const char* id : {"bloom-560m",
                         "falcon-7b",
                         "gemma-2b",
                         "gemma-2-2b",
                         "gpt-j-6b",
                         "pythia-14m",
                         "mpt-7b",
                         "olmo-2-1b",
                         "opt-125m",
                         "phi-2",
                         "phi-3-mini-4k",
                         "qwen2-0.5b",
                         "qwen3-0.6b",
                         "stablelm-2-1.6b",
                         "starcoder2-3b",
                         "starcoderbase-1b",
                         "granite-3.0-2b",
                         "mistral-7b-v0.1",
                         "bert-base-uncased",
                         "roberta-base",
                         "distilbert-base-uncased",
                         "vit-base-patch16-224",
                         "deit-base-distilled-patch16-224",
                         "resnet-18",
                         "resnet-50",
                         "torchvision/resnet18",
                         "torchvision/resnet50",
                         "timm/resnext50_32x4d",
                         "timm/vit_tiny_patch16_224",
                         "mixtral-8x7b",
                         "stable-diffusion-v1-5",
                         "stable-diffusion-xl"}) {
    const Result<facts::ModelSource> source = catalog.model(id);
    ASSERT_TRUE(source) << id;
    const model::Graph graph = graph_of(*source);
    for (const auto sharding : {Sharding::none, Sharding::fsdp}) {
      for (const auto attention : {facts::Attention::flash, facts::Attention::math}) {
        for (const bool recompute : {false, true}) {
          if (recompute && graph.segments.size() == 1) continue;  // refused: one block
          facts::Job job = small_job(2);
          job.parallel.sharding = sharding;
          job.train.attention = attention;
          recomputing(job, profile, recompute);
          expect_balanced(program_for(graph, job, profile),
                          std::string(id) + ", " + std::string(facts::name_of(sharding)) + ", " +
                              std::string(facts::name_of(attention)) +
                              (recompute ? ", recomputed" : ""));
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shardings, Lifetimes,
                         ::testing::Values(Sharding::none, Sharding::zero1, Sharding::zero2,
                                           Sharding::zero3, Sharding::fsdp, Sharding::fsdp1,
                                           Sharding::hsdp, Sharding::shard_grad_op),
                         [](const auto& row) {
                           std::string name(facts::name_of(row.param));
                           std::erase(name, '-');
                           return name;
                         });

// The player itself finds what it is there to find.
TEST(Player, FindsWhatIsFreedTwiceAndWhatIsLeft) {
  Program program;
  program.names = {"x"};
  program.slots = {{Bytes(512), facts::VramCategory::temporaries, Stream::compute, 0}};
  const auto step_of = [](std::vector<Event> events) {
    return std::vector<Pass>{{1, {{PhaseKind::forward, {{"h", 1, false, std::move(events)}}}}}};
  };
  program.step = step_of({{EventKind::allocate, 0}, {EventKind::free, 0}, {EventKind::free, 0}});
  Player twice(program);
  twice.step(true);
  EXPECT_EQ(twice.complaint(), "freed but not there: x (slot 0)");
  program.step = step_of({{EventKind::allocate, 0}});
  Player left(program);
  left.step(true);
  EXPECT_EQ(left.alive().size(), 1u);
  program.step = step_of({{EventKind::allocate, 0}, {EventKind::carry, 0}});
  Player lost(program);
  lost.step(true);
  EXPECT_EQ(lost.complaint(), "a tensor was handed to nobody");
}

}  // namespace
}  // namespace steelyard::step
