// Output projection and loss alone: what the engine keeps and its fullest moments, against the rows
// `cross_entropy` of saved_tensors.json, to the byte.
#include <algorithm>

#include "model/model.h"
#include "vectors/vector_rows.h"

namespace steelyard::testing {
namespace {

using facts::Value;

// The head of a LLaMA without its final norm: the projection reads the block's input.
model::Graph head_alone(const Value& dims) {
  const facts::ModelSource source{"head",
                                  facts::Object{{"model_type", "llama"},
                                                {"hidden_size", whole(dims, "H")},
                                                {"num_attention_heads", 1},
                                                {"intermediate_size", 64},
                                                {"num_hidden_layers", 1},
                                                {"vocab_size", whole(dims, "V")}},
                                  ""};
  auto graph = model::build(source, {whole(dims, "B"), whole(dims, "S")});
  EXPECT_TRUE(graph) << (graph ? "" : to_text(graph.error()));
  if (!graph) return {};
  model::Block& head = graph->segments.back().blocks.front();
  EXPECT_EQ(head.operators.front().kind, model::OperatorKind::rms_norm);
  head.input = head.operators.front().outputs.front();
  head.operators.erase(head.operators.begin());
  return std::move(*graph);
}

step::LossTypes loss_of(const std::string& variant) {
  if (variant == "no_upcast") return step::LossTypes::native;
  const bool old = variant == "hf_old" || variant == "old";
  return old ? step::LossTypes::upcast_shift : step::LossTypes::upcast;
}

struct Head {
  step::Program program;
  step::BlockTrace trace;
};

Head traced(const Value& row, const std::string& variant, bool keeps_logits) {
  const model::Graph graph = head_alone(*row.find("dims"));
  step::BlockOptions options = recorded_options(text(row, "mode"));
  options.variants.loss = loss_of(variant);
  options.variants.keeps_logits = keeps_logits;
  step::SharedTensors shared;
  shared.labels = outside(graph.batch * graph.sequence, facts::DType::int64);
  Head head;
  head.trace = step::trace_block(head.program, graph, graph.segments.back().blocks.front(), options,
                                 shared, false, true);
  return head;
}

TEST(CrossEntropy, EveryRowMatchesToTheByte) {
  int rows = 0;
  for (const Value& row : rows_of("cross_entropy")) {
    ++rows;
    const bool keeps = *row.find("keep_logits")->as_bool();
    const Head head = traced(row, text(row, "variant"), keeps);
    Tracker tracker(head.program);
    tracker.play(head.trace.forward, 0);
    const Bytes peak_forward = tracker.peak();
    tracker.play(head.trace.after_forward, 0);
    const std::string where = text(row, "variant") + " " + text(row, "mode") +
                              (keeps ? " keeps the logits" : " lets the logits go");
    EXPECT_EQ(tracker.live().value(), whole(row, "live_after_forward")) << where;
    EXPECT_EQ(peak_forward.value(), whole(row, "peak_forward")) << where;
    tracker.reset_peak();
    tracker.play(head.trace.backward, 0);
    EXPECT_EQ(tracker.peak().value(), whole(row, "peak_backward")) << where;
  }
  EXPECT_GE(rows, 10);
}

}  // namespace
}  // namespace steelyard::testing
