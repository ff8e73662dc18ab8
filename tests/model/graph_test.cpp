// Counting: elements, parameters, arithmetic.
#include "model/graph.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "model/model_fixtures.h"

namespace steelyard::model {
namespace {

Graph built(facts::Object config, SampleShape sample) {
  auto graph = build(source_of(std::move(config)), sample);
  if (!graph) throw std::runtime_error(to_text(graph.error()));
  return *graph;
}

Flops block_flops(const Block& block, const Graph& graph) {
  Flops sum;
  for (const Operator& op : block.operators) sum += forward_flops(op, block, graph);
  return sum;
}

TEST(Elements, MultipliesTheExtents) {
  EXPECT_EQ(elements({}), 1);
  EXPECT_EQ(elements({7}), 7);
  EXPECT_EQ(elements({2, 3, 4}), 24);
  EXPECT_EQ(elements({2, 0, 4}), 0);
}

TEST(Elements, NoticesOverflow) {
  EXPECT_THROW((void)elements({1'000'000'000'000, 1'000'000'000}), QuantityOverflow);
}

TEST(ParameterCount, OfOneLlamaLayerByHand) {
  // hidden 64, 4 heads of 16, 2 of keys and values, feed-forward 112:
  //   q 64*64 + k 64*32 + v 64*32 + o 64*64 = 4096 + 2048 + 2048 + 4096 = 12288
  //   gate, up, down 3 * 64*112 = 21504
  //   two norms 2 * 64 = 128                                     sum: 33920
  const Graph graph = built({{"model_type", "llama"},
                             {"vocab_size", 211},
                             {"hidden_size", 64},
                             {"num_hidden_layers", 3},
                             {"num_attention_heads", 4},
                             {"num_key_value_heads", 2},
                             {"intermediate_size", 112}},
                            {.batch = 2, .sequence = 8});
  EXPECT_EQ(parameter_count(layer_of(graph)), Parameters(33'920));
  // Embedding and head 211*64 = 13504 each, final norm 64: 3*33920 + 2*13504 + 64 = 128832.
  EXPECT_EQ(parameter_count(graph), Parameters(128'832));
}

TEST(ForwardFlops, OfOneLlamaLayerByHand) {
  // The layer above on 2 samples of 8 tokens: 16 rows.
  //   linears: 2 * 16 * (12288 + 21504) = 1081344     (the matrices of the layer, norms aside)
  //   attention: causal, so half of 8*8 scores = 32 pairs, 4 heads of 16 dimensions, 2 samples,
  //     two products of 2 operations: 4 * 2*4 * 16 * 32 = 16384
  const Graph graph = built({{"model_type", "llama"},
                             {"vocab_size", 211},
                             {"hidden_size", 64},
                             {"num_hidden_layers", 3},
                             {"num_attention_heads", 4},
                             {"num_key_value_heads", 2},
                             {"intermediate_size", 112}},
                            {.batch = 2, .sequence = 8});
  EXPECT_DOUBLE_EQ(block_flops(layer_of(graph), graph).value(), 1'081'344.0 + 16'384.0);
  // Head: 2 * 16 * 64 * 211 = 432128; the embedding looks up, it does not multiply.
  EXPECT_DOUBLE_EQ(forward_flops(graph).value(), 3 * 1'097'728.0 + 432'128.0);
}

TEST(ForwardFlops, OfGpt2ByHand) {
  // GPT-2 small, one sample of 1024 tokens.
  //   a layer's matrices: 768*2304 + 768*768 + 2 * 768*3072 = 7077888
  //     times 2 * 1024 rows = 14495514624
  //   attention: 4 * 12 heads * 64 * (1024*1024/2) = 1610612736
  //   head: 2 * 1024 * 768*50257 = 79047426048
  //   12 * (14495514624 + 1610612736) + 79047426048 = 272320954368
  const Graph graph = built({{"model_type", "gpt2"}}, {.batch = 1, .sequence = 1024});
  EXPECT_DOUBLE_EQ(forward_flops(graph).value(), 272'320'954'368.0);
}

TEST(ForwardFlops, AreTwoPerMatrixParameterAndTokenBesideAttention) {
  // Llama-3.1-8B at 8192 tokens. Parameters in matrices: all but the embedding (525336576) and the
  // 65 norms of 4096 (266240): 8030261248 - 525336576 - 266240 = 7504658432.
  // Attention: 32 layers * 4 * 32 heads * 128 * 8192*8192/2 = 17592186044416.
  const Graph graph = built({{"model_type", "llama"},
                             {"vocab_size", 128256},
                             {"intermediate_size", 14336},
                             {"num_key_value_heads", 8}},
                            {.batch = 1, .sequence = 8192});
  EXPECT_DOUBLE_EQ(forward_flops(graph).value(),
                   2.0 * 8192.0 * 7'504'658'432.0 + 17'592'186'044'416.0);
}

TEST(ForwardFlops, WindowLeavesOutWhatLiesFurtherBack) {
  // 8 tokens, window 4: of the half square 32 the triangle (8-4)*(8-4)/2 = 8 is missing: 24 pairs.
  // 1 sample, 4 heads of 16: 4 * 4 * 16 * 24 = 6144.
  const Graph graph = built({{"model_type", "mistral"},
                             {"hidden_size", 64},
                             {"num_attention_heads", 4},
                             {"num_key_value_heads", 4},
                             {"sliding_window", 4}},
                            {.batch = 1, .sequence = 8});
  const Block& layer = layer_of(graph);
  const Operator* attention = find_operator(layer, "self_attn");
  ASSERT_NE(attention, nullptr);
  EXPECT_DOUBLE_EQ(forward_flops(*attention, layer, graph).value(), 6144.0);
}

TEST(ForwardFlops, WindowAsLongAsTheSampleChangesNothing) {
  facts::Object config = {{"model_type", "mistral"}, {"sliding_window", 512}};
  const Graph windowed = built(config, {.batch = 1, .sequence = 512});
  config.back().second = facts::Value();
  const Graph full = built(config, {.batch = 1, .sequence = 512});
  EXPECT_EQ(forward_flops(windowed), forward_flops(full));
}

TEST(ForwardFlops, FullAttentionCountsEveryPair) {
  Graph graph = built({{"model_type", "gpt2"}}, {.batch = 1, .sequence = 64});
  Block layer = layer_of(graph);
  for (Operator& op : layer.operators) {
    if (op.kind != OperatorKind::attention) continue;
    const Flops causal = forward_flops(op, layer, graph);
    op.attention.causal = false;
    EXPECT_DOUBLE_EQ(forward_flops(op, layer, graph).value(), 2.0 * causal.value());
  }
}

// Whatever the sizes: twice the batch is twice the work, and parameters do not depend on the
// sample.
TEST(ForwardFlops, GrowsWithTheBatchForRandomSizes) {
  std::mt19937 random(20240817);
  const auto pick = [&](std::int64_t least, std::int64_t most) {
    return std::uniform_int_distribution<std::int64_t>(least, most)(random);
  };
  const std::vector<std::string> types = known_model_types();
  for (int round = 0; round < 200; ++round) {
    const std::string& type = types[static_cast<std::size_t>(pick(0, std::ssize(types) - 1))];
    const std::int64_t heads = pick(1, 8);
    // The words of classes of diffusers and of encoders are other ones, as those of megatron_gpt,
    // dcn, dlrm, wide_deep, layers, transfo-xl, networks of stages and the encoder-decoders with
    // heads of both sides; mamba2, bamba and the like have words that must agree; pictures need a
    // length of their own; swinv2 computes its bias once for all samples.
    const bool is_class = type.front() >= 'A' && type.front() <= 'Z';
    static const std::set<std::string> kOthers = {"megatron_gpt",
                                                  "megatron_t5",
                                                  "dcn",
                                                  "wide_deep",
                                                  "dlrm",
                                                  "layers",
                                                  "mamba2",
                                                  "nemotron_h",
                                                  "transfo-xl",
                                                  "bart",
                                                  "blenderbot",
                                                  "marian",
                                                  "mbart",
                                                  "pegasus",
                                                  "whisper",
                                                  "clip",
                                                  "siglip",
                                                  "llava",
                                                  "paligemma",
                                                  "qwen2_vl",
                                                  "qwen2_5_vl",
                                                  "segformer",
                                                  "internvl",
                                                  "detr",
                                                  "gemma3",
                                                  "idefics3",
                                                  "mllama",
                                                  "smolvlm",
                                                  "swinv2",
                                                  "bamba",
                                                  "granitemoehybrid",
                                                  "llama4",
                                                  "qwen3_vl",
                                                  "qwen3_5"};
    if (is_class || kOthers.contains(type)) continue;
    const facts::Object config = {{"model_type", type},
                                  {"hidden_size", 16 * heads * pick(1, 4)},
                                  {"num_hidden_layers", pick(1, 9)},
                                  {"num_attention_heads", heads},
                                  {"num_key_value_heads", heads},
                                  {"rotary_dim", 8},
                                  {"vocab_size", pick(1, 500)}};
    SCOPED_TRACE(type);
    const std::int64_t sequence = pick(1, 64);
    const Graph once = built(config, {.batch = 1, .sequence = sequence});
    const Graph twice = built(config, {.batch = 2, .sequence = sequence});
    EXPECT_DOUBLE_EQ(forward_flops(twice).value(), 2.0 * forward_flops(once).value());
    EXPECT_EQ(parameter_count(twice), parameter_count(once));
    EXPECT_GT(forward_flops(once), Flops(0.0));
  }
}

}  // namespace
}  // namespace steelyard::model
