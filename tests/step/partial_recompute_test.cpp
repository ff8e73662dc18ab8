// Parts of a layer that run again in backward, in bytes worked by hand: a batch of 1, 64 tokens of
// 64 features in bf16 (8 KiB), 4 heads, a feed-forward network 128 wide.
#include "step/partial_recompute.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "model/model.h"
#include "step/block_trace.h"
#include "step/primitives.h"
#include "step/recomputed_modules.h"

namespace steelyard::step {
namespace {

constexpr std::int64_t kTokens = 64, kHidden = 64, kWide = 128, kHeads = 4;

model::Graph graph_of(const facts::Object& changes) {
  facts::Value config{facts::Object{{"model_type", "megatron_gpt"},
                                    {"num-layers", 2},
                                    {"hidden-size", kHidden},
                                    {"num-attention-heads", kHeads},
                                    {"kv-channels", 16},
                                    {"ffn-hidden-size", kWide},
                                    {"vocab-size", 512},
                                    {"max-position-embeddings", 128},
                                    {"position-embedding-type", "rope"},
                                    {"normalization", "RMSNorm"},
                                    {"add-bias-linear", false},
                                    {"hidden-dropout", 0.0},
                                    {"attention-dropout", 0.0},
                                    {"transformer-impl", "local"}}};
  for (const auto& [key, value] : changes) config.set(key, value);
  auto graph = model::build({"test", config, ""}, {.batch = 1, .sequence = kTokens});
  EXPECT_TRUE(graph) << (graph ? "" : to_text(graph.error()));
  return graph ? *graph : model::Graph();
}

const facts::Object kLatent = {{"multi-latent-attention", true},
                               {"qk-layernorm", true},
                               {"kv-lora-rank", 32},
                               {"qk-head-dim", 16},
                               {"qk-pos-emb-head-dim", 8},
                               {"v-head-dim", 16}};

struct Layer {
  Program program;
  BlockTrace trace;

  [[nodiscard]] Bytes saved() const {
    Bytes sum;
    for (const SavedStorage& storage : trace.saved) {
      if (!storage.external) sum += storage.bytes;
    }
    return sum;
  }
  // Every slot is born once and freed once, and never freed before it is born.
  [[nodiscard]] bool balanced() const {
    std::map<std::int32_t, int> state;
    for (const auto* events : {&trace.forward, &trace.after_forward, &trace.backward}) {
      for (const Event& event : *events) {
        if (event.kind == EventKind::allocate || event.kind == EventKind::adopt) {
          if (state[event.index]++ != 0) return false;
        } else if (event.kind == EventKind::free) {
          if (state[event.index]++ != 1) return false;
        } else if (event.kind == EventKind::carry || event.kind == EventKind::keep_gradient) {
          continue;
        }
      }
    }
    return true;
  }
  [[nodiscard]] std::int64_t gradients() const {
    return std::count_if(trace.gradients.begin(), trace.gradients.end(),
                         [](std::int32_t slot) { return slot >= 0; });
  }
};

Layer layer_of(const facts::Object& changes, std::vector<std::string> modules) {
  const model::Graph graph = graph_of(changes);
  BlockOptions options;
  options.tape.arithmetic.compute = DType::bf16;
  options.weight_dtype = DType::bf16;
  options.variants.attention = AttentionKernel::flash;
  options.variants.rms_norm = RmsNorm::native;
  options.variants.rotary = Rotary::fused;
  options.recomputed_modules = std::move(modules);
  SharedTensors shared;
  for (const model::TensorInfo& info : graph.shared) {
    Tensor tensor;
    tensor.storage = std::make_shared<Storage>();
    tensor.storage->external = true;
    tensor.numel = model::elements(info.shape);
    tensor.dtype = DType::bf16;
    tensor.storage->bytes = bytes_of(tensor);
    shared.tensors.push_back(tensor);
  }
  Layer layer;
  const model::Block& block = graph.segments[1].blocks[0];
  layer.trace = trace_block(layer.program, graph, block, options, shared, false, false);
  return layer;
}

// fc1's result of 64 x 128 and the activation's, 16 KiB each, are not kept; fc1's input still is.
TEST(PartialRecompute, FeedForwardKeepsItsInput) {
  const Layer plain = layer_of({}, {});
  const Layer again = layer_of({}, {"mlp"});
  EXPECT_EQ(plain.saved() - again.saved(), Bytes(2 * kTokens * kWide * 2));
  EXPECT_EQ(plain.gradients(), again.gradients());
  EXPECT_TRUE(plain.balanced());
  EXPECT_TRUE(again.balanced());
}

// Both norms' results, 8 KiB each, are let go and made again; their statistics are not there
// meanwhile either: a figure of 4 bytes per token each.
TEST(PartialRecompute, NormsLetTheirResultsGo) {
  const Layer plain = layer_of({}, {});
  const Layer again = layer_of({}, {"layernorm"});
  EXPECT_EQ(plain.saved() - again.saved(), Bytes(2 * (kTokens * kHidden * 2 + kTokens * 4)));
  EXPECT_EQ(plain.gradients(), again.gradients());
  EXPECT_TRUE(again.balanced());
}

// Inside of a linear a norm is no module of its own.
TEST(PartialRecompute, NormsInsideOfLinearsStay) {
  const facts::Object engine = {{"transformer-impl", "transformer_engine"}};
  EXPECT_EQ(layer_of(engine, {}).saved(), layer_of(engine, {"layernorm"}).saved());
}

// Kept without: compressed keys (with positions) of 40 and the norm's result of 32 with its figure,
// queries and keys of 4 x 24 and values of 4 x 16, the four tables of 8. With: the compressed keys
// alone; what they are made into is made again.
TEST(PartialRecompute, LatentAttentionKeepsWhatIsCompressed) {
  const Layer plain = layer_of(kLatent, {});
  const Layer again = layer_of(kLatent, {"mla_up_proj"});
  const std::int64_t heads = 2 * kHeads * 24 + kHeads * 16;
  const std::int64_t tables = 4 * 8;
  EXPECT_EQ(plain.saved() - again.saved(), Bytes(kTokens * (2 * (heads + tables + 32) + 4)));
  EXPECT_EQ(plain.gradients(), again.gradients());
  EXPECT_TRUE(again.balanced());
}

TEST(PartialRecompute, PartsAreThoseOfTheirModules) {
  const model::Graph graph = graph_of(kLatent);
  const model::Block& block = graph.segments[1].blocks[0];
  const auto parts = recomputed_parts(block, {"mla_up_proj", "mlp", "layernorm"});
  ASSERT_EQ(parts.size(), 4u);
  EXPECT_EQ(block.operators[parts[0].first].name, "input_layernorm");
  EXPECT_EQ(block.operators[parts[1].first].name, "self_attention.linear_q_proj");
  EXPECT_EQ(block.operators[parts[1].hook].name, "self_attention.core_attention");
  EXPECT_EQ(parts[1].outputs.size(), 3u);
  EXPECT_EQ(block.operators[parts[2].first].name, "pre_mlp_layernorm");
  EXPECT_EQ(block.operators[parts[3].first].name, "mlp.linear_fc1");
  EXPECT_EQ(parts[3].hook, 0u);
  EXPECT_TRUE(recomputed_parts(block, {"moe", "shared_experts"}).empty());
}

// Any of them together: nothing is lost, nothing is freed twice, and no more is kept.
TEST(PartialRecompute, AnyModulesGoTogether) {
  const std::vector<std::string> all = {"layernorm", "mla_up_proj", "mlp"};
  const Bytes most = layer_of(kLatent, {}).saved();
  for (unsigned chosen = 0; chosen < 8; ++chosen) {
    std::vector<std::string> modules;
    for (unsigned i = 0; i < 3; ++i) {
      if ((chosen & (1u << i)) != 0) modules.push_back(all[i]);
    }
    const Layer layer = layer_of(kLatent, modules);
    EXPECT_TRUE(layer.balanced()) << chosen;
    EXPECT_LE(layer.saved(), most) << chosen;
    EXPECT_EQ(layer.gradients(), layer_of(kLatent, {}).gradients()) << chosen;
  }
}

}  // namespace
}  // namespace steelyard::step
