// What is particular about each family, read off its graph.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/model_fixtures.h"

namespace steelyard::model {
namespace {

using testing::HasSubstr;

Graph built(facts::Object config, SampleShape sample = {.batch = 2, .sequence = 48}) {
  auto graph = build(source_of(std::move(config)), sample);
  if (!graph) throw std::runtime_error(to_text(graph.error()));
  return *graph;
}

const Operator& the(const Block& block, std::string_view name) {
  const Operator* op = find_operator(block, name);
  if (op == nullptr) throw std::runtime_error("no operator " + std::string(name));
  return *op;
}

const Block& head_of(const Graph& graph) {
  return graph.segments.back().blocks.back();
}
const Block& embed_of(const Graph& graph) {
  return graph.segments.front().blocks.front();
}

TEST(Llama, LayerInTheOrderOfItsCode) {
  const Graph graph = built({{"model_type", "llama"}});
  EXPECT_EQ(operator_names(layer_of(graph)),
            "input_layernorm self_attn.q_proj self_attn.q_heads self_attn.k_proj "
            "self_attn.k_heads self_attn.v_proj self_attn.v_heads self_attn.rotary self_attn "
            "self_attn.o_proj residual_attention post_attention_layernorm mlp.gate_proj "
            "mlp.up_proj mlp.act_fn mlp.down_proj residual_mlp");
  EXPECT_EQ(operator_names(embed_of(graph)), "model.embed_tokens model.rotary_emb");
  EXPECT_EQ(operator_names(head_of(graph)), "model.norm lm_head loss");
  EXPECT_EQ(layer_of(graph).name, "model.layers");
}

TEST(Llama, SoftmaxInFp32AdditiveMaskNoDropout) {
  const Graph graph = built({{"model_type", "llama"}});
  const AttentionShape& attention = the(layer_of(graph), "self_attn").attention;
  EXPECT_TRUE(attention.softmax_in_fp32);
  EXPECT_FALSE(attention.masks_by_where);
  EXPECT_TRUE(attention.causal);
  EXPECT_EQ(attention.dropout, 0.0);
  EXPECT_EQ(attention.window, 0);
}

TEST(Llama, TiedHeadSharesTheEmbedding) {
  const Graph tied = built({{"model_type", "llama"}, {"tie_word_embeddings", true}});
  EXPECT_EQ(find_weight(head_of(tied), "lm_head.weight")->tied_to, "model.embed_tokens.weight");
  const Graph untied = built({{"model_type", "llama"}});
  EXPECT_EQ(find_weight(head_of(untied), "lm_head.weight")->tied_to, "");
  EXPECT_EQ(parameter_count(untied) - parameter_count(tied), Parameters(32000 * 4096));
}

TEST(Llama, NullMeansAsManyKeyHeadsAsHeads) {
  const Graph graph = built({{"model_type", "mistral"}, {"num_key_value_heads", facts::Value()}});
  EXPECT_EQ(the(layer_of(graph), "self_attn").attention.kv_heads, 32);
  EXPECT_EQ(the(layer_of(built({{"model_type", "mistral"}})), "self_attn").attention.kv_heads, 8);
}

TEST(Mistral, WindowByDefaultAndNoneForNull) {
  EXPECT_EQ(the(layer_of(built({{"model_type", "mistral"}})), "self_attn").attention.window, 4096);
  const Graph none = built({{"model_type", "mistral"}, {"sliding_window", facts::Value()}});
  EXPECT_EQ(the(layer_of(none), "self_attn").attention.window, 0);
}

TEST(Qwen2, UpperLayersHaveAWindowWhenItIsUsed) {
  const Graph graph = built({{"model_type", "qwen2"},
                             {"num_hidden_layers", 12},
                             {"use_sliding_window", true},
                             {"max_window_layers", 10},
                             {"sliding_window", 256}});
  ASSERT_EQ(graph.segments.size(), 4u);  // embed, 10 full, 2 windowed, head
  EXPECT_EQ(graph.segments[1].repeat, 10);
  EXPECT_EQ(the(graph.segments[1].blocks[0], "self_attn").attention.window, 0);
  EXPECT_EQ(graph.segments[2].repeat, 2);
  EXPECT_EQ(the(graph.segments[2].blocks[0], "self_attn").attention.window, 256);
}

TEST(Qwen2, LayerTypesSayIt) {
  const facts::Value sliding = "sliding_attention";
  const facts::Value full = "full_attention";
  const Graph graph = built({{"model_type", "qwen2"},
                             {"num_hidden_layers", 4},
                             {"layer_types", facts::Array{sliding, full, sliding, full}}});
  ASSERT_EQ(graph.segments.size(), 3u);
  EXPECT_EQ(graph.segments[1].repeat, 2);
  EXPECT_EQ(graph.segments[1].blocks.size(), 2u);
  const auto wrong = build(
      source_of(
          {{"model_type", "qwen2"}, {"num_hidden_layers", 2}, {"layer_types", facts::Array{full}}}),
      {});
  ASSERT_FALSE(wrong);
  EXPECT_THAT(wrong.error().subject, HasSubstr("layer_types"));
}

TEST(Qwen3, NormsEachHeadBeforeItTurns) {
  const Graph graph = built({{"model_type", "qwen3"}});
  EXPECT_THAT(operator_names(layer_of(graph)),
              HasSubstr("self_attn.v_heads self_attn.q_norm self_attn.k_norm self_attn.rotary"));
  EXPECT_EQ(find_weight(layer_of(graph), "self_attn.q_norm.weight")->shape, Shape{128});
}

TEST(Granite, ScalesEmbeddingHalvesAndLogits) {
  const Graph graph = built({{"model_type", "granite"},
                             {"embedding_multiplier", 12.0},
                             {"residual_multiplier", 0.25},
                             {"logits_scaling", 8.0}});
  EXPECT_EQ(the(embed_of(graph), "model.embed_tokens.scale").constant, 12.0);
  EXPECT_EQ(the(layer_of(graph), "residual_multiplier_attention").constant, 0.25);
  EXPECT_EQ(the(layer_of(graph), "residual_multiplier_mlp").constant, 0.25);
  EXPECT_EQ(the(head_of(graph), "lm_head.scale").constant, 0.125);
}

TEST(Gemma, NormsMultiplyByOnePlusWeightAndGeluIsTheTanhForm) {
  const Graph graph = built({{"model_type", "gemma"}, {"hidden_act", "gelu"}});
  EXPECT_TRUE(the(layer_of(graph), "input_layernorm").unit_offset);
  EXPECT_TRUE(the(head_of(graph), "model.norm").unit_offset);
  EXPECT_EQ(the(layer_of(graph), "mlp.act_fn").activation, ActivationKind::gelu_tanh);
  EXPECT_DOUBLE_EQ(the(embed_of(graph), "model.embed_tokens.scale").constant, std::sqrt(3072.0));
}

TEST(Gemma2, EveryOtherLayerHasAWindow) {
  const Graph even = built({{"model_type", "gemma2"}});
  ASSERT_EQ(even.segments.size(), 3u);
  EXPECT_EQ(even.segments[1].repeat, 13);
  EXPECT_EQ(the(even.segments[1].blocks[0], "self_attn").attention.window, 4096);
  EXPECT_EQ(the(even.segments[1].blocks[1], "self_attn").attention.window, 0);
  const Graph odd = built({{"model_type", "gemma2"}, {"num_hidden_layers", 7}});
  ASSERT_EQ(odd.segments.size(), 4u);
  EXPECT_EQ(odd.segments[1].repeat, 3);
  EXPECT_EQ(odd.segments[2].repeat, 1);
  EXPECT_EQ(the(odd.segments[2].blocks.at(0), "self_attn").attention.window, 4096);
}

TEST(Gemma2, CapsScoresAndLogitsUnlessNull) {
  const Graph capped = built({{"model_type", "gemma2"}});
  EXPECT_EQ(the(layer_of(capped), "self_attn").attention.softcap, 50.0);
  EXPECT_EQ(the(head_of(capped), "lm_head.softcap").constant, 30.0);
  const Graph open = built({{"model_type", "gemma2"},
                            {"attn_logit_softcapping", facts::Value()},
                            {"final_logit_softcapping", facts::Value()}});
  EXPECT_EQ(the(layer_of(open), "self_attn").attention.softcap, 0.0);
  EXPECT_EQ(find_operator(head_of(open), "lm_head.softcap"), nullptr);
}

TEST(Phi, BothHalvesReadOneNormAndPartOfEachHeadTurns) {
  const Graph graph = built({{"model_type", "phi"}});
  const Block& layer = layer_of(graph);
  const TensorRef normed = the(layer, "input_layernorm").outputs[0];
  EXPECT_EQ(the(layer, "self_attn.q_proj").inputs[0].index, normed.index);
  EXPECT_EQ(the(layer, "mlp.fc1").inputs[0].index, normed.index);
  EXPECT_EQ(the(layer, "self_attn.rotary").rotary_dims, 32);  // 64 * 0.5
  EXPECT_NE(find_weight(head_of(graph), "lm_head.bias"), nullptr);
}

TEST(Phi3, OneTensorHoldsGateAndUp) {
  const Graph graph = built({{"model_type", "phi3"}});
  const Operator& gated = the(layer_of(graph), "mlp.activation_fn");
  EXPECT_TRUE(gated.fused_gate_up);
  ASSERT_EQ(gated.inputs.size(), 1u);
  EXPECT_EQ(the(layer_of(graph), "self_attn.split").outputs.size(), 3u);
}

TEST(Phi3, PartialRotaryIsReadWhereEitherVersionPutsIt) {
  const facts::Object inside = {{"partial_rotary_factor", 0.75}};
  const Graph old_style = built({{"model_type", "phi3"}, {"partial_rotary_factor", 0.75}});
  const Graph new_style = built({{"model_type", "phi3"}, {"rope_parameters", inside}});
  EXPECT_EQ(the(layer_of(old_style), "self_attn.rotary").rotary_dims, 72);  // 96 * 0.75
  EXPECT_EQ(the(layer_of(new_style), "self_attn.rotary").rotary_dims, 72);
}

TEST(Gpt2, LayerInTheOrderOfItsCode) {
  const Graph graph = built({{"model_type", "gpt2"}});
  EXPECT_EQ(operator_names(layer_of(graph)),
            "ln_1 attn.c_attn attn.split attn.q_heads attn.k_heads attn.v_heads attn attn.c_proj "
            "attn.resid_dropout residual_attention ln_2 mlp.c_fc mlp.act mlp.c_proj mlp.dropout "
            "residual_mlp");
  EXPECT_EQ(operator_names(embed_of(graph)),
            "transformer.wte transformer.wpe transformer.wte.add_positions "
            "transformer.wte.dropout");
  EXPECT_EQ(layer_of(graph).name, "transformer.h");
}

TEST(Gpt2, Conv1dWeightsAreStoredInByOut) {
  const Graph graph = built({{"model_type", "gpt2"}});
  EXPECT_EQ(find_weight(layer_of(graph), "attn.c_attn.weight")->shape, (Shape{768, 2304}));
  EXPECT_EQ(find_weight(head_of(graph), "lm_head.weight")->shape, (Shape{50257, 768}));
}

TEST(Gpt2, DropoutsAreThoseOfTheConfigurationAndNoneForZero) {
  const Graph graph = built({{"model_type", "gpt2"}, {"attn_pdrop", 0.2}, {"resid_pdrop", 0.3}});
  EXPECT_EQ(the(layer_of(graph), "attn").attention.dropout, 0.2);
  EXPECT_EQ(the(layer_of(graph), "mlp.dropout").probability, 0.3);
  EXPECT_TRUE(the(layer_of(graph), "attn").attention.masks_by_where);
  EXPECT_FALSE(the(layer_of(graph), "attn").attention.softmax_in_fp32);
  const Graph dry = built({{"model_type", "gpt2"}, {"embd_pdrop", 0.0}, {"resid_pdrop", 0}});
  for (const Segment& segment : dry.segments) {
    for (const Operator& op : segment.blocks[0].operators) {
      EXPECT_NE(op.kind, OperatorKind::dropout);
    }
  }
}

TEST(Gpt2, UsualNamesOfItsKeysAreAcceptedToo) {
  const Graph graph = built({{"model_type", "gpt2"},
                             {"hidden_size", 96},
                             {"num_hidden_layers", 3},
                             {"num_attention_heads", 6},
                             {"max_position_embeddings", 50}});
  EXPECT_EQ(graph.hidden, 96);
  EXPECT_EQ(graph.layers, 3);
  EXPECT_EQ(graph.max_sequence, 50);
}

TEST(GptBigcode, OneKeyHeadForAllQueries) {
  const Graph graph = built({{"model_type", "gpt_bigcode"}});
  EXPECT_EQ(find_weight(layer_of(graph), "attn.c_attn.weight")->shape, (Shape{768 + 2 * 64, 768}));
  EXPECT_EQ(the(layer_of(graph), "attn").attention.kv_heads, 1);
}

TEST(GptNeox, SequentialHalvesReadTheFirstSum) {
  const Graph parallel = built({{"model_type", "gpt_neox"}});
  EXPECT_EQ(the(layer_of(parallel), "post_attention_layernorm").inputs[0].index,
            layer_of(parallel).input.index);
  const Graph sequential = built({{"model_type", "gpt_neox"}, {"use_parallel_residual", false}});
  EXPECT_EQ(the(layer_of(sequential), "post_attention_layernorm").inputs[0].index,
            the(layer_of(sequential), "residual_attention").outputs[0].index);
}

TEST(Gptj, RotaryDimsFitTheHead) {
  EXPECT_EQ(the(layer_of(built({{"model_type", "gptj"}})), "attn.rotary").rotary_dims, 64);
  const Graph whole = built({{"model_type", "gptj"}, {"rotary_dim", facts::Value()}});
  EXPECT_EQ(the(layer_of(whole), "attn.rotary").rotary_dims, 256);
  const auto wrong = build(source_of({{"model_type", "gptj"}, {"rotary_dim", 300}}), {});
  ASSERT_FALSE(wrong);
  EXPECT_THAT(wrong.error().subject, HasSubstr("rotary_dim"));
}

TEST(Opt, TableHasTwoRowsMoreThanPositions) {
  const Graph graph = built({{"model_type", "opt"}});
  EXPECT_EQ(find_weight(embed_of(graph), "model.decoder.embed_positions.weight")->shape,
            (Shape{2050, 768}));
  const TensorRef positions = the(embed_of(graph), "model.decoder.embed_positions").outputs[0];
  EXPECT_EQ(embed_of(graph).tensors[static_cast<std::size_t>(positions.index)].shape,
            (Shape{2, 48, 768}));
}

TEST(Opt, PostNormVariantHasNoFinalNorm) {
  const Graph graph =
      built({{"model_type", "opt"}, {"do_layer_norm_before", false}, {"word_embed_proj_dim", 512}});
  EXPECT_EQ(operator_names(head_of(graph)), "model.decoder.project_out lm_head loss");
  EXPECT_EQ(layer_of(graph).operators.back().name, "final_layer_norm");
}

TEST(Bloom, AlibiAndItsOwnGelu) {
  const Graph graph = built({{"model_type", "bloom"}});
  EXPECT_TRUE(the(layer_of(graph), "self_attention").attention.alibi);
  EXPECT_EQ(the(layer_of(graph), "mlp.gelu_impl").activation, ActivationKind::bloom_gelu);
  EXPECT_NE(find_operator(embed_of(graph), "transformer.word_embeddings_layernorm"), nullptr);
}

TEST(Bloom, ResidualMayStartBehindTheNorm) {
  const Graph graph =
      built({{"model_type", "bloom"}, {"apply_residual_connection_post_layernorm", true}});
  const Block& layer = layer_of(graph);
  EXPECT_EQ(the(layer, "residual_attention").inputs[0].index,
            the(layer, "input_layernorm").outputs[0].index);
}

TEST(Falcon, ThreeArchitectures) {
  const Graph seven = built({{"model_type", "falcon"}});
  EXPECT_EQ(the(layer_of(seven), "self_attention").attention.kv_heads, 1);
  EXPECT_EQ(find_operator(layer_of(seven), "post_attention_layernorm"), nullptr);
  const Graph forty = built({{"model_type", "falcon"},
                             {"hidden_size", 8192},
                             {"num_attention_heads", 128},
                             {"num_kv_heads", 8},
                             {"new_decoder_architecture", true}});
  EXPECT_EQ(the(layer_of(forty), "self_attention").attention.kv_heads, 8);
  EXPECT_NE(find_operator(layer_of(forty), "ln_mlp"), nullptr);
  const Graph rw = built({{"model_type", "falcon"},
                          {"alibi", true},
                          {"parallel_attn", false},
                          {"multi_query", false}});
  EXPECT_EQ(find_operator(layer_of(rw), "self_attention.rotary"), nullptr);
  EXPECT_NE(find_operator(layer_of(rw), "post_attention_layernorm"), nullptr);
}

TEST(Mpt, AsPublishedHasAlibiNoBiasAndNoPositions) {
  const Graph graph =
      built({{"model_type", "mpt"}, {"attn_config", facts::Object{{"alibi", true}}}});
  EXPECT_TRUE(the(layer_of(graph), "attn").attention.alibi);
  EXPECT_EQ(find_operator(embed_of(graph), "transformer.wpe"), nullptr);
  for (const Weight& weight : layer_of(graph).weights) EXPECT_NE(weight.role, WeightRole::bias);
}

TEST(Mpt, AsLlmFoundryTrainsItWithPositionsAndBiases) {
  // d 128, ratio 4, 8 heads, 2 layers, 64 positions, vocabulary 256, tied.
  //   a layer: two norms 2*2*128 = 512; Wqkv 128*384 + 384 = 49536; out 128*128 + 128 = 16512;
  //     up 128*512 + 512 = 66048; down 512*128 + 128 = 65664      sum: 198272
  //   wte 256*128 = 32768, wpe 64*128 = 8192, norm_f 256
  //   2*198272 + 32768 + 8192 + 256 = 437760
  const Graph graph = built({{"model_type", "mpt"},
                             {"d_model", 128},
                             {"n_heads", 8},
                             {"n_layers", 2},
                             {"expansion_ratio", 4},
                             {"max_seq_len", 64},
                             {"vocab_size", 256},
                             {"learned_pos_emb", true},
                             {"no_bias", false},
                             {"attn_config", facts::Object{{"alibi", false}}}});
  EXPECT_EQ(parameter_count(layer_of(graph)), Parameters(198'272));
  EXPECT_EQ(parameter_count(graph), Parameters(437'760));
  EXPECT_NE(find_operator(embed_of(graph), "transformer.wpe"), nullptr);
}

TEST(Mpt, AnswersToTheUsualNamesOfItsKeys) {
  const Graph graph = built({{"model_type", "mpt"},
                             {"hidden_size", 128},
                             {"num_attention_heads", 8},
                             {"num_hidden_layers", 3}});
  EXPECT_EQ(graph.hidden, 128);
  EXPECT_EQ(graph.layers, 3);
}

TEST(Mpt, WhatIsNotBuiltIsSaid) {
  const auto graph = build(
      source_of({{"model_type", "mpt"}, {"attn_config", facts::Object{{"qk_ln", true}}}}), {});
  ASSERT_FALSE(graph);
  EXPECT_EQ(graph.error().code, ErrorCode::not_supported);
  EXPECT_THAT(graph.error().subject, HasSubstr("attn_config.qk_ln"));
}

TEST(Olmo2, NormsStandBehindTheHalves) {
  const Graph graph = built({{"model_type", "olmo2"}});
  EXPECT_EQ(operator_names(layer_of(graph)),
            "self_attn.q_proj self_attn.q_norm self_attn.k_proj self_attn.k_norm self_attn.v_proj "
            "self_attn.q_heads self_attn.k_heads self_attn.v_heads self_attn.rotary self_attn "
            "self_attn.o_proj post_attention_layernorm residual_attention mlp.gate_proj "
            "mlp.up_proj mlp.act_fn mlp.down_proj post_feedforward_layernorm residual_mlp");
}

TEST(Stablelm, NormsOfItsOwnForEachHead) {
  const Graph graph = built({{"model_type", "stablelm"}, {"qk_layernorm", true}});
  EXPECT_EQ(the(layer_of(graph), "self_attn.q_layernorm").weights.size(), 32u);
  EXPECT_EQ(find_weight(layer_of(graph), "self_attn.q_layernorm.norms.31.weight")->shape,
            Shape{80});
}

}  // namespace
}  // namespace steelyard::model
