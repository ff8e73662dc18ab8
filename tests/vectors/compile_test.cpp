// What torch.compile keeps of a block for its backward pass, against the rows `compile` of
// saved_tensors.json (AOTAutograd's min-cut partitioner): within 2 %.
#include <cmath>

#include "model/model.h"
#include "vectors/vector_rows.h"

namespace steelyard::testing {
namespace {

using facts::Value;

facts::ModelSource source_of(const Value& row) {
  const Value& dims = *row.find("dims");
  if (text(row, "module") == "gpt2_block") {
    const double p = real(dims, "p");
    return {"gpt2",
            facts::Object{{"model_type", "gpt2"},
                          {"n_embd", whole(dims, "H")},
                          {"n_head", whole(dims, "nh")},
                          {"n_layer", 1},
                          {"n_positions", whole(dims, "S")},
                          {"vocab_size", 1000},
                          {"activation_function",
                           text(dims, "act") == "py" ? "gelu_new" : "gelu_pytorch_tanh"},
                          {"resid_pdrop", p},
                          {"attn_pdrop", p},
                          {"embd_pdrop", p}},
            ""};
  }
  const bool head = text(row, "module") == "lm_head_ce";
  return {"llama",
          facts::Object{{"model_type", "llama"},
                        {"hidden_size", whole(dims, "H")},
                        {"num_attention_heads", head ? 1 : whole(dims, "nh")},
                        {"num_key_value_heads", head ? 1 : whole(dims, "nkv")},
                        {"intermediate_size", head ? 64 : whole(dims, "I")},
                        {"num_hidden_layers", 1},
                        {"vocab_size", head ? whole(dims, "V") : 1000}},
          ""};
}

// The recorded head is the projection and the loss, without the final norm.
void drop_norm(model::Block& head) {
  head.input = head.operators.front().outputs.front();
  head.operators.erase(head.operators.begin());
}

// Bytes of the weights' casts apart: the rows count them apart.
struct Kept {
  Bytes activations, weight_casts;
};

Kept kept_of(const Value& row) {
  const Value& dims = *row.find("dims");
  auto graph = model::build(source_of(row), {whole(dims, "B"), whole(dims, "S")});
  EXPECT_TRUE(graph) << (graph ? "" : to_text(graph.error()));
  if (!graph) return {};
  const bool head = text(row, "module") == "lm_head_ce";
  if (head) drop_norm(graph->segments.back().blocks.front());
  step::BlockOptions options = recorded_options(text(row, "mode"));
  options.tape.compiled = true;
  const Value* attention = dims.find("attn");
  if (attention != nullptr && *attention->as_text() == "eager") {
    options.variants.attention = step::AttentionKernel::math;
  }
  step::SharedTensors shared;
  const facts::DType residual =
      options.tape.arithmetic.autocast ? facts::DType::fp32 : options.tape.arithmetic.compute;
  for (const model::TensorInfo& info : graph->shared) {
    shared.tensors.push_back(outside(model::elements(info.shape), residual));
  }
  shared.mask = outside(graph->sequence * graph->sequence, facts::DType::boolean);
  step::Program program;
  const model::Block& block = graph->segments[head ? graph->segments.size() - 1 : 1].blocks[0];
  const step::BlockTrace trace =
      step::trace_block(program, *graph, block, options, shared, false, head);
  Kept kept;
  for (const step::SavedStorage& storage : trace.saved) {
    (storage.weight_cast ? kept.weight_casts : kept.activations) += storage.bytes;
  }
  return kept;
}

TEST(Compile, EveryRowMatchesWithinTwoPercent) {
  int rows = 0;
  for (const Value& row : rows_of("compile")) {
    ++rows;
    const Kept kept = kept_of(row);
    const auto measured = static_cast<double>(whole(row, "compiled_saved_bytes"));
    const std::string where =
        text(row, "module") + " " + text(row, "mode") + " " + name_of_row(row);
    const double error = static_cast<double>(kept.activations.value()) / measured - 1.0;
    EXPECT_LT(std::abs(error), 0.02) << where;
    EXPECT_EQ(kept.weight_casts.value(), whole(row, "weight_cast_bytes")) << where;
  }
  EXPECT_GE(rows, 5);
}

}  // namespace
}  // namespace steelyard::testing
