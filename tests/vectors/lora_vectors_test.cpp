// The bytes that autograd keeps of a frozen linear with a low-rank adapter, from the engine,
// against the `lora` rows of saved_tensors.json, to the byte.
#include <gtest/gtest.h>

#include <string>

#include "codec/codec.h"
#include "step/adapters.h"
#include "step/block_trace.h"
#include "vectors_folder.h"

namespace steelyard {
namespace {

using facts::DType;
using facts::Value;

std::int64_t whole(const Value& row, std::string_view key) {
  return *row.find(key)->as_whole();
}
const std::string& text(const Value& row, std::string_view key) {
  return *row.find(key)->as_text();
}
double real(const Value& row, std::string_view key) {
  const Value* value = row.find(key);
  return value->as_real() != nullptr ? *value->as_real() : static_cast<double>(*value->as_whole());
}

// embed - one linear [i -> o] - head: what step::with_method takes for a model.
model::Graph linear_graph(const Value& dims) {
  model::Graph graph;
  graph.batch = whole(dims, "B");
  graph.sequence = whole(dims, "S");
  model::Block layer;
  layer.name = "layers";
  model::Weight matrix;
  matrix.name = "proj.weight";
  matrix.shape = {whole(dims, "o"), whole(dims, "i")};
  layer.weights = {matrix};
  layer.tensors = {{"x", {graph.batch, graph.sequence, whole(dims, "i")}},
                   {"y", {graph.batch, graph.sequence, whole(dims, "o")}}};
  layer.input = {false, 0};
  layer.output = {false, 1};
  model::Operator op;
  op.kind = model::OperatorKind::linear;
  op.name = "proj";
  op.inputs = {layer.input};
  op.outputs = {layer.output};
  op.weights = {0};
  layer.operators = {op};
  graph.segments = {{1, {model::Block()}}, {1, {layer}}, {1, {model::Block()}}};
  return graph;
}

std::int64_t saved_by_engine(const Value& row) {
  const Value& dims = *row.find("dims");
  facts::Job job;
  job.train.method = facts::Method::lora;
  job.train.lora.rank = whole(dims, "r");
  job.train.lora.targets = {"proj"};
  job.train.lora.dropout = real(row, "p");
  const auto graph = step::with_method(linear_graph(dims), job, {});
  if (!graph) {
    ADD_FAILURE() << to_text(graph.error());
    return 0;
  }
  const DType adapter = text(row, "adapter") == "float32" ? DType::fp32 : DType::bf16;
  step::BlockOptions options;
  options.tape.kernel_temporaries = false;
  options.tape.arithmetic.compute = DType::bf16;
  options.tape.arithmetic.autocast = text(row, "mode") == "amp_bf16";
  options.tape.arithmetic.ambient = DType::bf16;  // the rows' input
  options.weight_type = [&](const model::Weight& weight) {
    return weight.adapter ? adapter : DType::bf16;
  };
  step::SharedTensors shared;
  step::Program program;
  const step::BlockTrace trace = step::trace_block(program, *graph, graph->segments[1].blocks[0],
                                                   options, shared, false, false);
  std::int64_t sum = 0;
  for (const step::SavedStorage& storage : trace.saved) {
    if (!storage.weight_cast) sum += storage.bytes.value();
  }
  return sum;
}

TEST(LoraRows, EveryRowMatchesToTheByte) {
  const auto file = codec::read_value(testing::vectors_folder() / "saved_tensors.json");
  ASSERT_TRUE(file) << to_text(file.error());
  int rows = 0;
  for (const Value& row : *file->find("lora")->as_array()) {
    ++rows;
    EXPECT_EQ(saved_by_engine(row), whole(row, "formula_bytes")) << codec::to_json(row, 0);
  }
  EXPECT_GE(rows, 1);
}

}  // namespace
}  // namespace steelyard
