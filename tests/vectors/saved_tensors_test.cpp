// The bytes that autograd keeps of one call of a module, from the engine (graph built by `model`,
// traced by `step`), against the rows of saved_tensors.json, to the byte. GPT-2, LLaMA, BERT: one
// layer; ResNet-50 and ViT: the whole model; the language model's head: its last block; the
// mixture of experts and the UNet's blocks: what their families write, in a block of their own.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>

#include "codec/codec.h"
#include "model/decoder_parts.h"
#include "model/diffusion_parts.h"
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

facts::ModelSource bert_source(const Value& dims) {
  const double p = real(dims, "p");
  return {"bert",
          Object{{"model_type", "bert"},
                 {"hidden_size", whole(dims, "H")},
                 {"num_attention_heads", whole(dims, "nh")},
                 {"intermediate_size", whole(dims, "I")},
                 {"num_hidden_layers", 1},
                 {"vocab_size", 1000},
                 {"hidden_dropout_prob", p},
                 {"attention_probs_dropout_prob", p}},
          ""};
}

facts::ModelSource resnet_source(const Value&) {
  return {"resnet50", Object{{"model_type", "torchvision_resnet"}}, ""};
}

facts::ModelSource vit_source(const Value& dims) {
  return {"vit_base_patch16_224",
          Object{{"model_type", "timm_vision_transformer"}, {"depth", whole(dims, "L")}}, ""};
}

// OPT with its norms behind the layers has none before its head: a linear and the loss.
facts::ModelSource head_source(const Value& dims) {
  return {"opt",
          Object{{"model_type", "opt"},
                 {"hidden_size", whole(dims, "H")},
                 {"word_embed_proj_dim", whole(dims, "H")},
                 {"num_attention_heads", 1},
                 {"ffn_dim", 8},
                 {"num_hidden_layers", 1},
                 {"vocab_size", whole(dims, "V")},
                 {"max_position_embeddings", whole(dims, "S")},
                 {"do_layer_norm_before", false}},
          ""};
}

model::Graph built(const facts::ModelSource& source, const model::SampleShape& sample) {
  auto graph = model::build(source, sample);
  if (!graph) throw std::runtime_error(to_text(graph.error()));
  return std::move(*graph);
}

model::SampleShape text_sample(const Value& dims) {
  return {.batch = whole(dims, "B"), .sequence = whole(dims, "S")};
}

// The router and the experts of a Mixtral layer; which tokens go where is given from outside.
model::Graph mixture_graph(const Value& dims) {
  model::Graph graph;
  graph.batch = whole(dims, "B");
  graph.sequence = whole(dims, "S");
  model::MixturePart part;
  part.shape = {whole(dims, "E"), 2, whole(dims, "I")};
  const std::int64_t choices = graph.batch * graph.sequence * part.shape.chosen;
  std::vector<model::TensorRef> assignment;
  for (std::int64_t i = 0; i < 2 * part.shape.experts; ++i) {
    const std::int64_t expert = i / 2;
    const std::int64_t own =
        choices / part.shape.experts + (expert < choices % part.shape.experts ? 1 : 0);
    assignment.push_back({true, static_cast<std::int32_t>(graph.shared.size())});
    graph.shared.push_back(
        {"assignment." + std::to_string(i), {own}, model::ElementKind::token_ids});
  }
  model::BlockBuilder block(graph, "mixture");
  const model::TensorRef x = block.input({graph.batch, graph.sequence, whole(dims, "H")});
  const auto [weights, chosen] = block.router(part.module + ".gate", x, part.shape);
  const model::TensorRef y =
      block.experts(part.module + ".experts", x, weights, assignment, part.shape, part.activation);
  graph.segments.push_back({1, {block.finish(y)}});
  return graph;
}

// A ResnetBlock2D and the Transformer2DModel behind it.
model::Graph unet_graph(const Value& dims) {
  model::Graph graph;
  graph.batch = whole(dims, "B");
  graph.shared = {{"temb", {graph.batch, whole(dims, "temb")}, model::ElementKind::real},
                  {"context",
                   {graph.batch, whole(dims, "ctxlen"), whole(dims, "ctx")},
                   model::ElementKind::real}};
  const std::int64_t side = whole(dims, "hw");
  model::BlockBuilder block(graph, "down_blocks.0");
  model::TensorRef x = block.input({graph.batch, whole(dims, "cin"), side, side});
  x = model::add_diffusion_resnet(block, x, {true, 0}, {"resnets.0", whole(dims, "cout"), 32});
  x = model::add_diffusion_transformer(block, x, {true, 1},
                                       {"attentions.0", whole(dims, "nh"), 1, 32, false});
  graph.segments.push_back({1, {block.finish(x)}});
  return graph;
}

step::BlockOptions options_of(const Value& row) {
  step::BlockOptions options;
  const Value& dims = *row.find("dims");
  const std::string& mode = text(row, "mode");
  const std::string attention = dims.find("attn") != nullptr ? text(dims, "attn") : "eager";
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
  const bool old_loss = dims.find("variant") != nullptr && text(dims, "variant") == "old";
  options.variants.loss = old_loss ? step::LossTypes::upcast_shift : step::LossTypes::upcast;
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

Saved& operator+=(Saved& sum, const step::BlockTrace& trace) {
  for (const step::SavedStorage& storage : trace.saved) {
    if (storage.weight_cast || storage.borrowed) continue;
    // 0-dim tensors (philox seed and offset, the loss's total weight) are not in the rows.
    if (!storage.external && storage.bytes <= Bytes(8)) continue;
    sum.raw += storage.bytes;
    sum.rounded += round_up(storage.bytes, Bytes(512));
  }
  return sum;
}

// One module: which graph, and which of its blocks are called.
struct Module {
  model::Graph (*graph)(const Value& dims);
  enum class Part { layer, head, whole } part = Part::layer;
  facts::DType mask = facts::DType::fp32;
};

const std::map<std::string, Module>& modules() {
  using Part = Module::Part;
  static const std::map<std::string, Module> all = {
      {"gpt2_block",
       {[](const Value& d) { return built(gpt2_source(d), text_sample(d)); }, Part::layer,
        facts::DType::boolean}},
      {"llama_block", {[](const Value& d) { return built(llama_source(d), text_sample(d)); }}},
      {"bert_layer", {[](const Value& d) { return built(bert_source(d), text_sample(d)); }}},
      {"lm_head_ce",
       {[](const Value& d) {
          model::Graph graph = built(head_source(d), text_sample(d));
          graph.segments.back().blocks[0].operators.back().widens_logits = true;  // LLaMA's loss
          return graph;
        },
        Part::head}},
      {"moe_top2", {mixture_graph}},
      {"unet_res_xattn", {unet_graph}},
      {"resnet50",
       {[](const Value& d) {
          const std::int64_t side = whole(d, "img");
          return built(resnet_source(d), {.batch = whole(d, "B"), .height = side, .width = side});
        },
        Part::whole}},
      {"vit_b16",
       {[](const Value& d) { return built(vit_source(d), {.batch = whole(d, "B")}); },
        Part::whole}},
  };
  return all;
}

// What the module receives from outside beside its input.
void give_inputs(step::SharedTensors& shared, const model::Graph& graph, const Module& module,
                 const step::BlockOptions& options, const std::string& name) {
  const bool autocast = options.tape.arithmetic.autocast;
  // Convolutions before a UNet's block put out the compute type; a residual stream is in fp32.
  const bool conv = name == "unet_res_xattn";
  const facts::DType stream =
      autocast && !conv ? facts::DType::fp32 : options.tape.arithmetic.compute;
  if (conv) shared.stream.dtype = stream;
  for (const model::TensorInfo& info : graph.shared) {
    const bool real_kind = info.kind == model::ElementKind::real;
    step::Tensor tensor;  // the engine makes those of the batch
    if (real_kind) tensor = outside(model::elements(info.shape), stream);
    tensor.requires_grad = info.name == "temb";
    shared.tensors.push_back(std::move(tensor));
  }
  const bool boolean = module.mask == facts::DType::boolean;
  shared.labels = outside(graph.batch * graph.sequence, facts::DType::int64);
  shared.mask = outside(graph.sequence * graph.sequence, boolean ? module.mask : stream);
}

Saved saved_of(const Value& row) {
  const std::string& name = text(row, "module");
  const Module& module = modules().at(name);
  const model::Graph graph = module.graph(*row.find("dims"));
  const step::BlockOptions options = options_of(row);
  step::SharedTensors shared;
  step::Program program;
  Saved sum;
  using Part = Module::Part;
  if (module.part != Part::whole) {
    give_inputs(shared, graph, module, options, name);
    const bool head = module.part == Part::head;
    const std::size_t layer = graph.segments.size() > 1 ? 1 : 0;
    const model::Segment& segment = head ? graph.segments.back() : graph.segments[layer];
    return sum +=
           step::trace_block(program, graph, segment.blocks[0], options, shared, false, head);
  }
  for (const model::Segment& segment : graph.segments) {
    const bool first = &segment == &graph.segments.front();
    const bool last = &segment == &graph.segments.back();
    for (std::int64_t i = 0; i < segment.repeat; ++i) {
      for (const model::Block& block : segment.blocks) {
        sum += step::trace_block(program, graph, block, options, shared, first, last);
      }
    }
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
  EXPECT_GE(rows, 5);
}

INSTANTIATE_TEST_SUITE_P(Modules, SavedTensors,
                         testing::Values("gpt2_block", "llama_block", "bert_layer", "lm_head_ce",
                                         "moe_top2", "unet_res_xattn", "resnet50", "vit_b16"));

}  // namespace
}  // namespace steelyard
