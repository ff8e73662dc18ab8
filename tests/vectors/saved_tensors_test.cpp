// The bytes that autograd keeps of a GPT-2 and a LLaMA block, from the engine (graph built by
// `model`, traced by `step`), against the rows of saved_tensors.json, to the byte.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "codec/codec.h"
#include "model/model.h"
#include "step/block_trace.h"

namespace steelyard {
namespace {

using facts::Object;
using facts::Value;

std::filesystem::path vectors_folder() {
  const char* named = std::getenv("STEELYARD_VECTORS");
  return named != nullptr ? std::filesystem::path(named)
                          : std::filesystem::path(STEELYARD_TESTS_DIR) / "vectors" / "data";
}

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

facts::ModelSource gpt2_source(const Value& dims) {
  const double p = real(dims, "p");
  return {
      "gpt2",
      Object{{"model_type", "gpt2"},
             {"n_embd", whole(dims, "H")},
             {"n_head", whole(dims, "nh")},
             {"n_layer", 1},
             {"n_positions", whole(dims, "S")},
             {"vocab_size", 1000},
             {"activation_function", text(dims, "act") == "py" ? "gelu_new" : "gelu_pytorch_tanh"},
             {"resid_pdrop", p},
             {"attn_pdrop", p},
             {"embd_pdrop", p}},
      ""};
}

facts::ModelSource llama_source(const Value& dims) {
  return {"llama",
          Object{{"model_type", "llama"},
                 {"hidden_size", whole(dims, "H")},
                 {"num_attention_heads", whole(dims, "nh")},
                 {"num_key_value_heads", whole(dims, "nkv")},
                 {"intermediate_size", whole(dims, "I")},
                 {"num_hidden_layers", 1},
                 {"vocab_size", 1000}},
          ""};
}

step::BlockOptions options_of(const Value& row) {
  step::BlockOptions options;
  const std::string& mode = text(row, "mode");
  const std::string& attention = text(*row.find("dims"), "attn");
  options.tape.kernel_temporaries = false;
  options.tape.arithmetic.compute = mode == "fp32" ? facts::DType::fp32 : facts::DType::bf16;
  options.tape.arithmetic.autocast = mode == "amp_bf16";
  // torch 1.x has no rule yet that lets mean(dim) forget its input (vram.md B.3).
  options.tape.mean_saves_input = text(row, "torch").starts_with("1.");
  options.weight_dtype = mode == "bf16" ? facts::DType::bf16 : facts::DType::fp32;
  using step::AttentionKernel;
  options.variants.attention =
      attention.starts_with("flash") ? AttentionKernel::flash : AttentionKernel::math;
  options.variants.math_attention =
      attention == "sdpa_math" ? step::MathAttention::sdpa_math : step::MathAttention::eager;
  options.variants.key_value_repeat =
      attention == "flash_repeat" ? step::KeyValueRepeat::repeat : step::KeyValueRepeat::grouped;
  return options;
}

step::Tensor outside(std::int64_t numel, facts::DType dtype) {
  step::Tensor tensor;
  tensor.storage = std::make_shared<step::Storage>();
  tensor.storage->external = true;
  tensor.storage->bytes = step::bytes_of(numel, dtype);
  tensor.numel = numel;
  tensor.dtype = dtype;
  return tensor;
}

struct Saved {
  Bytes raw, rounded;
};

Saved saved_of(const Value& row) {
  const Value& dims = *row.find("dims");
  const bool gpt2 = text(row, "module") == "gpt2_block";
  const auto built = model::build(gpt2 ? gpt2_source(dims) : llama_source(dims),
                                  {whole(dims, "B"), whole(dims, "S")});
  if (!built) {
    ADD_FAILURE() << to_text(built.error());
    return {};
  }
  const model::Graph& graph = *built;
  const step::BlockOptions options = options_of(row);
  step::SharedTensors shared;
  const facts::DType residual =
      options.tape.arithmetic.autocast ? facts::DType::fp32 : options.tape.arithmetic.compute;
  for (const model::TensorInfo& info : graph.shared) {
    shared.tensors.push_back(outside(model::elements(info.shape), residual));
  }
  shared.mask = outside(graph.sequence * graph.sequence, gpt2 ? facts::DType::boolean : residual);
  step::Program program;
  const step::BlockTrace trace =
      step::trace_block(program, graph, graph.segments[1].blocks[0], options, shared, false, false);
  Saved sum;
  for (const step::SavedStorage& storage : trace.saved) {
    if (storage.weight_cast) continue;
    if (storage.bytes == Bytes(8)) continue;  // philox seed and offset: 0-dim, not in the rows
    sum.raw += storage.bytes;
    sum.rounded += round_up(storage.bytes, Bytes(512));
  }
  return sum;
}

class SavedTensors : public testing::TestWithParam<std::string> {};

TEST_P(SavedTensors, EveryRowMatchesToTheByte) {
  const auto file = codec::read_value(vectors_folder() / "saved_tensors.json");
  ASSERT_TRUE(file) << to_text(file.error());
  int rows = 0;
  for (const Value& row : *file->find("saved")->as_array()) {
    if (text(row, "module") != GetParam() || row.find("formula_bytes") == nullptr) continue;
    ++rows;
    const Saved saved = saved_of(row);
    const std::string where = codec::to_json(*row.find("dims"), 0) + " " + text(row, "mode") +
                              " torch " + text(row, "torch");
    EXPECT_EQ(saved.raw.value(), whole(row, "formula_bytes")) << where;
    EXPECT_EQ(saved.rounded.value(), whole(row, "formula_bytes_512")) << where;
  }
  EXPECT_GE(rows, 30);
}

INSTANTIATE_TEST_SUITE_P(Blocks, SavedTensors, testing::Values("gpt2_block", "llama_block"));

}  // namespace
}  // namespace steelyard
