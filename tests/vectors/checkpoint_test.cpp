// A stack of LLaMA blocks under recomputation: bytes after forward and the fullest moments of
// forward and backward, against the rows `checkpoint` of saved_tensors.json, to the byte.
#include "model/model.h"
#include "vectors/vector_rows.h"

namespace steelyard::testing {
namespace {

using facts::Value;

facts::ModelSource source_of(const Value& dims) {
  return {"llama",
          facts::Object{{"model_type", "llama"},
                        {"hidden_size", whole(dims, "H")},
                        {"num_attention_heads", whole(dims, "nh")},
                        {"num_key_value_heads", whole(dims, "nkv")},
                        {"intermediate_size", whole(dims, "I")},
                        {"num_hidden_layers", 1},
                        {"vocab_size", 1000}},
          ""};
}

step::Recompute recompute_of(const std::string& policy) {
  if (policy == "full") return step::Recompute::everything;
  return policy == "selective_op" ? step::Recompute::operations : step::Recompute::none;
}

TEST(Checkpoint, EveryRowMatchesToTheByte) {
  int rows = 0;
  for (const Value& row : rows_of("checkpoint")) {
    ++rows;
    const Value& dims = *row.find("dims");
    const auto graph = model::build(source_of(dims), {whole(dims, "B"), whole(dims, "S")});
    ASSERT_TRUE(graph) << to_text(graph.error());
    step::BlockOptions options = recorded_options("bf16");
    options.variants.attention = step::AttentionKernel::flash;
    options.recompute = recompute_of(text(row, "policy"));
    step::SharedTensors shared;
    for (const model::TensorInfo& info : graph->shared) {
      shared.tensors.push_back(outside(model::elements(info.shape), facts::DType::bf16));
    }
    step::Program program;
    const step::BlockTrace trace = step::trace_block(program, *graph, graph->segments[1].blocks[0],
                                                     options, shared, false, false);

    const std::int64_t layers = whole(row, "layers");
    const std::string where = text(row, "policy") + ", layers " + std::to_string(layers);
    Tracker tracker(program);
    for (std::int64_t i = 0; i < layers; ++i) tracker.play(trace.forward, i);
    for (std::int64_t i = 0; i < layers; ++i) tracker.play(trace.after_forward, i);
    EXPECT_EQ(tracker.live().value(), whole(row, "live_after_forward")) << where;
    EXPECT_EQ(tracker.peak().value(), whole(row, "peak_forward")) << where;
    // The caller holds the last block's result, and the gradient that he hands to backward().
    tracker.keep_carried();
    tracker.reset_peak();
    tracker.add_outside(
        step::bytes_of(whole(dims, "B") * whole(dims, "S") * whole(dims, "H"), facts::DType::bf16));
    for (std::int64_t i = layers; i-- > 0;) tracker.play(trace.backward, i);
    EXPECT_EQ(tracker.peak().value(), whole(row, "peak_backward")) << where;
  }
  EXPECT_GE(rows, 5);
}

}  // namespace
}  // namespace steelyard::testing
