// A job with framework = "megatron" that imports nothing, and the import of the arguments that say
// the same: one plan, to the byte.
#include <gtest/gtest.h>

#include <filesystem>
#include <ostream>
#include <string>
#include <vector>

#include "cli/planning.h"
#include "codec/codec.h"
#include "plan/plan.h"

namespace steelyard::cli {
namespace {

const catalog::Catalog& own_catalog() {
  static const catalog::Catalog catalog =
      catalog::Catalog::at(std::filesystem::path(STEELYARD_SOURCE_DIR) / "catalog");
  return catalog;
}

Result<facts::Plan> planned(const facts::Value& keys) {
  STEELYARD_TRY(job, codec::job_from(keys, "a test", {}));
  STEELYARD_TRY(request, request_of({std::move(job), {}, ""}, own_catalog()));
  request.advice = false;
  return plan::plan(request);
}

struct Layout {
  std::string name;
  bool sharded = true;
  std::int64_t tensor = 1, pipeline = 1, chunks = 1, context = 1, expert = 1;
  bool sequence_parallel = false;
  std::string recompute = "none";
  std::string precision = "bf16-mixed";
  std::string family = "llama";
};
void PrintTo(const Layout& layout, std::ostream* out) {
  *out << layout.name;
}

constexpr std::int64_t kGpus = 16, kPasses = 4;

std::int64_t replicas(const Layout& layout) {
  return kGpus / (layout.tensor * layout.pipeline * layout.context);
}

facts::Value machine() {
  return facts::Object{{"name", "dgx-h100"}, {"nodes", 2}, {"gpus", 8}};
}

// As Hugging Face's classes name it; 1000 tokens, so that padding shows.
facts::Value config_of(const std::string& family) {
  facts::Value config = facts::Object{{"model_type", family},
                                      {"hidden_size", 256},
                                      {"num_hidden_layers", 8},
                                      {"num_attention_heads", 8},
                                      {"num_key_value_heads", 4},
                                      {"intermediate_size", 704},
                                      {"vocab_size", 1000},
                                      {"max_position_embeddings", 1024},
                                      {"tie_word_embeddings", family == "qwen3"}};
  if (family == "qwen3") config.set("head_dim", 64);
  if (family == "mixtral") {
    config.set("num_local_experts", 4);
    config.set("num_experts_per_tok", 2);
  }
  if (family != "gpt2") return config;
  return facts::Object{{"model_type", "gpt2"}, {"n_embd", 256},      {"n_layer", 8},
                       {"n_head", 8},          {"vocab_size", 1000}, {"n_positions", 1024}};
}

facts::Value plain(const Layout& layout) {
  facts::Value parallel = facts::Object{{"tensor", layout.tensor},
                                        {"pipeline", layout.pipeline},
                                        {"context", layout.context},
                                        {"expert", layout.expert},
                                        {"sequence_parallel", layout.sequence_parallel},
                                        {"sharding", layout.sharded ? "zero1" : "none"}};
  if (layout.family == "mixtral") parallel.set("expert_tensor", layout.tensor);
  if (layout.chunks > 1) {
    parallel.set("virtual_stages", layout.chunks);
    parallel.set("schedule", "interleaved");
  }
  return facts::Object{{"framework", "megatron"},
                       {"model", facts::Object{{"config", config_of(layout.family)}}},
                       {"train", facts::Object{{"precision", layout.precision},
                                               {"sequence_length", 1024},
                                               {"micro_batch", 2},
                                               {"gradient_accumulation", kPasses},
                                               {"recompute", layout.recompute}}},
                       {"parallel", std::move(parallel)},
                       {"machine", machine()}};
}

void add_model(const std::string& family, facts::Value& to) {
  to.set("num-layers", 8);
  to.set("hidden-size", 256);
  to.set("num-attention-heads", 8);
  to.set("vocab-size", 1000);
  to.set("max-position-embeddings", 1024);
  if (family == "gpt2") return;
  to.set("ffn-hidden-size", 704);
  to.set("group-query-attention", true);
  to.set("num-query-groups", 4);
  to.set("swiglu", true);
  to.set("normalization", "RMSNorm");
  to.set("position-embedding-type", "rope");
  to.set("disable-bias-linear", true);
  to.set("hidden-dropout", 0.0);
  to.set("attention-dropout", 0.0);
  to.set("untie-embeddings-and-output-weights", family != "qwen3");
  if (family == "qwen3") {
    to.set("qk-layernorm", true);
    to.set("kv-channels", 64);
  }
  if (family != "mixtral") return;
  to.set("num-experts", 4);
  to.set("moe-router-topk", 2);
  to.set("moe-grouped-gemm", true);
  to.set("moe-token-dispatcher-type", "alltoall");
}

facts::Value imported(const Layout& layout) {
  facts::Value arguments{facts::Object{}};
  add_model(layout.family, arguments);
  arguments.set("seq-length", 1024);
  arguments.set("micro-batch-size", 2);
  arguments.set("train-iters", 100);  // a whole command line: nothing is assumed of it
  arguments.set("global-batch-size", 2 * kPasses * replicas(layout));
  if (layout.precision != "fp32") arguments.set(layout.precision.substr(0, 4), true);
  arguments.set("tensor-model-parallel-size", layout.tensor);
  arguments.set("pipeline-model-parallel-size", layout.pipeline);
  arguments.set("context-parallel-size", layout.context);
  arguments.set("expert-model-parallel-size", layout.expert);
  arguments.set("sequence-parallel", layout.sequence_parallel);
  arguments.set("use-distributed-optimizer", layout.sharded);
  if (layout.chunks > 1) arguments.set("num-virtual-stages-per-pipeline-rank", layout.chunks);
  if (layout.recompute != "none") arguments.set("recompute-granularity", layout.recompute);
  if (layout.recompute == "full") arguments.set("recompute-method", "uniform");
  return facts::Object{{"import", facts::Object{{"megatron", std::move(arguments)}}},
                       {"machine", machine()}};
}

class PlainMegatron : public ::testing::TestWithParam<Layout> {};

TEST_P(PlainMegatron, IsTheImportOfTheSameArguments) {
  const auto own = planned(plain(GetParam()));
  const auto import = planned(imported(GetParam()));
  ASSERT_TRUE(own) << to_text(own.error());
  ASSERT_TRUE(import) << to_text(import.error());
  ASSERT_EQ(own->vram.ranks.size(), import->vram.ranks.size());
  for (std::size_t i = 0; i < own->vram.ranks.size(); ++i) {
    const facts::RankMemory& here = own->vram.ranks[i];
    const facts::RankMemory& there = import->vram.ranks[i];
    EXPECT_EQ(here.kind, there.kind);
    EXPECT_EQ(here.peak_allocated, there.peak_allocated) << here.kind;
    EXPECT_EQ(here.peak_reserved, there.peak_reserved) << here.kind;
    EXPECT_EQ(here.peak_device_used, there.peak_device_used) << here.kind;
    EXPECT_EQ(here.steady_allocated, there.steady_allocated) << here.kind;
  }
  ASSERT_TRUE(own->pace.step && import->pace.step);
  EXPECT_EQ(own->pace.step->value(), import->pace.step->value());
}

std::vector<Layout> layouts() {
  return {
      {.name = "zero1"},
      {.name = "none", .sharded = false},
      {.name = "tensor", .tensor = 2},
      {.name = "sequence", .tensor = 4, .sequence_parallel = true},
      {.name = "pipeline", .pipeline = 4, .recompute = "selective"},
      {.name = "chunks", .pipeline = 2, .chunks = 2},
      {.name = "context", .tensor = 2, .context = 2, .sequence_parallel = true},
      {.name = "full", .sharded = false, .tensor = 2, .pipeline = 2, .recompute = "full"},
      {.name = "fp16", .precision = "fp16-mixed"},
      {.name = "fp32", .precision = "fp32"},
      {.name = "experts", .expert = 4, .family = "mixtral"},
      {.name = "experts_full",
       .tensor = 2,
       .expert = 2,
       .sequence_parallel = true,
       .recompute = "full",
       .family = "mixtral"},
      {.name = "qwen3", .tensor = 2, .sequence_parallel = true, .family = "qwen3"},
      {.name = "gpt2", .tensor = 2, .pipeline = 2, .family = "gpt2"},
  };
}

INSTANTIATE_TEST_SUITE_P(Layouts, PlainMegatron, ::testing::ValuesIn(layouts()),
                         [](const auto& param) { return param.param.name; });

// The peaks of an import with one more argument, less those without.
Bytes added_by(const char* argument) {
  const facts::Value usual = imported({.name = "usual"});
  facts::Value arguments = *usual.find("import")->find("megatron");
  arguments.set(argument, true);
  facts::Value other = usual;
  other.set("import", facts::Object{{"megatron", std::move(arguments)}});
  const auto before = planned(usual);
  const auto after = planned(other);
  EXPECT_TRUE(before && after) << argument;
  if (!before || !after) return {};
  return after->vram.ranks.front().peak_allocated - before->vram.ranks.front().peak_allocated;
}

// mlp.py without its fused kernel keeps the activated half and the other one's copy: in each of 8
// layers twice 2 x 1024 tokens of 704 in two bytes.
TEST(PlainMegatronStates, KeepMoreWithoutFusedActivations) {
  const double kept = 8.0 * 2.0 * 2048.0 * 704.0 * 2.0;
  const auto extra = static_cast<double>(added_by("no-bias-swiglu-fusion").value());
  EXPECT_GT(extra, kept * 0.8);
  EXPECT_LT(extra, kept * 1.2);
}

// The mask of the batch: 2 x 1024 x 1024 of a byte.
TEST(PlainMegatronStates, HaveTheMaskOfTheBatch) {
  const double lost =
      -static_cast<double>(added_by("no-create-attention-mask-in-dataloader").value());
  EXPECT_GE(lost, 0.0);
  EXPECT_LE(lost, 2.0 * 1024 * 1024 + 512.0);
}

// By hand: P parameters on a GPU, 16 GPUs share the states: 2 P + 4 P, and 12 P / 16.
TEST(PlainMegatronStates, AreTheBuffersOfItsEngine) {
  const auto plan = planned(plain({.name = "zero1"}));
  ASSERT_TRUE(plan) << to_text(plan.error());
  const std::int64_t layer = 256 * (256 + 2 * 128) + 256 * 256 + 3 * 256 * 704 + 2 * 256;
  const std::int64_t parameters = 8 * layer + 2 * 1024 * 256 + 256;
  const auto bytes = static_cast<double>(6 * parameters + 12 * parameters / 16);
  const auto steady = static_cast<double>(plan->vram.ranks.front().steady_allocated.value());
  EXPECT_GT(steady, bytes);
  const double workspaces = 3.0 * (32 << 20) + (1 << 20);
  EXPECT_LT(steady, bytes * 1.02 + workspaces + 4.0 * (1 << 20));
}

TEST(PlainMegatronStates, HaveNoShardingOfOtherEngines) {
  facts::Value keys = plain({.name = "zero2"});
  keys.set("parallel", facts::Object{{"sharding", "zero2"}});
  const auto plan = planned(keys);
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().subject, "parallel.sharding");
  EXPECT_EQ(plan.error().code, ErrorCode::impossible_combination);
}

TEST(PlainMegatronStates, ReduceInTheTypeThatTheJobSays) {
  facts::Value keys = plain({.name = "zero1"});
  const auto wide = planned(keys);
  keys.set("parallel", facts::Object{{"sharding", "zero1"}, {"reduce_precision", "bf16"}});
  const auto narrow = planned(keys);
  ASSERT_TRUE(wide && narrow);
  EXPECT_LT(narrow->vram.ranks.front().steady_allocated, wide->vram.ranks.front().steady_allocated);
}

}  // namespace
}  // namespace steelyard::cli
