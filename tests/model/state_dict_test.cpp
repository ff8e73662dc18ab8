// Every family against transformers itself: tiny models whose state dicts, module outputs and
// matrix multiplications were recorded (state_dicts.json says with which versions).
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "codec/codec.h"
#include "model/model_fixtures.h"

namespace steelyard::model {
namespace {

const std::filesystem::path kFile =
    std::filesystem::path(STEELYARD_TESTS_DIR) / "model" / "state_dicts.json";

Shape shape_from(const facts::Value& list) {
  Shape shape;
  for (const facts::Value& extent : *list.as_array()) shape.push_back(*extent.as_whole());
  return shape;
}

std::map<std::string, Shape> shapes_from(const facts::Value& table) {
  std::map<std::string, Shape> shapes;
  for (const auto& [name, shape] : *table.as_object()) shapes[name] = shape_from(shape);
  return shapes;
}

// Calls `visit(block, prefix)` for every layer of the model, in order, with the prefix of its
// names.
template <class Visit>
void for_each_block(const Graph& graph, const Visit& visit) {
  std::map<std::string, std::int64_t> layers;  // of a stage, where there are several
  for (const Segment& segment : graph.segments) {
    for (std::int64_t i = 0; i < segment.repeat; ++i) {
      for (const Block& block : segment.blocks) {
        const bool end = block.name == "embed" || block.name == "middle" || block.name == "head";
        visit(block, end ? "" : block.name + "." + std::to_string(layers[block.name]++) + ".");
      }
    }
  }
}

std::map<std::string, Shape> weights_of(const Graph& graph) {
  std::map<std::string, Shape> weights;
  for_each_block(graph, [&](const Block& block, const std::string& prefix) {
    for (const Weight& weight : block.weights) {
      EXPECT_TRUE(weights.emplace(prefix + weight.name, weight.shape).second) << weight.name;
    }
  });
  return weights;
}

// The output of the operator that bears a module's name and is not the module's other part (an
// attention whose module also holds the output projection has no parameters of its own).
std::map<std::string, Shape> outputs_of(const Graph& graph) {
  std::map<std::string, Shape> outputs;
  for_each_block(graph, [&](const Block& block, const std::string& prefix) {
    for (const Operator& op : block.operators) {
      // What is no module of its own, or one that computes something else.
      const bool other =
          op.kind == OperatorKind::class_token || op.kind == OperatorKind::add_weight ||
          op.kind == OperatorKind::router || op.kind == OperatorKind::experts ||
          op.kind == OperatorKind::state_scan || op.kind == OperatorKind::selective_scan ||
          op.kind == OperatorKind::attention || op.kind == OperatorKind::parameter ||
          op.kind == OperatorKind::multiply_weight || op.kind == OperatorKind::window_bias;
      if (op.weights.empty() || other) continue;
      // A second pass through a module that stands elsewhere (DeBERTa's distances).
      const Weight& first = block.weights.at(static_cast<std::size_t>(op.weights.front()));
      if (!first.name.starts_with(op.name)) continue;
      const TensorRef out = op.outputs.front();
      const auto& tensors = out.shared ? graph.shared : block.tensors;
      outputs[prefix + op.name] = tensors.at(static_cast<std::size_t>(out.index)).shape;
    }
  });
  return outputs;
}

// The recorded hooks fire on a normalisation before queries are transposed, on OPT's linears as
// [B*S,H], on StableLM's norms one head at a time: the elements agree, not always their order.
std::int64_t recorded_elements(const std::map<std::string, Shape>& recorded,
                               const std::string& name) {
  if (const auto found = recorded.find(name); found != recorded.end()) {
    return elements(found->second);
  }
  std::int64_t sum = 0;
  for (const auto& [module, shape] : recorded) {
    if (module.starts_with(name + ".norms.")) sum += elements(shape);
  }
  return sum;
}

Flops linear_flops(const Graph& graph) {
  Flops sum;
  for_each_block(graph, [&](const Block& block, const std::string&) {
    for (const Operator& op : block.operators) {
      const bool scores =
          op.kind == OperatorKind::attention || op.kind == OperatorKind::disentangled_attention;
      if (!scores) sum += forward_flops(op, block, graph);
      if (op.scan.state == 0) continue;  // the recurrence is no linear
      const Shape& in = block.tensors.at(static_cast<std::size_t>(op.inputs[0].index)).shape;
      const std::int64_t tokens = elements(in) / in.back();
      sum -= Flops(7.0 * static_cast<double>(tokens * op.scan.channels() * op.scan.state));
    }
  });
  return sum;
}

class StateDict : public testing::Test {
 protected:
  static const facts::Value& recorded() {
    static const Result<facts::Value> file = codec::read_value(kFile);
    if (!file) throw std::runtime_error(to_text(file.error()));
    return *file;
  }

  template <class Check>
  static void for_each_model(const Check& check) {
    for (const facts::Value& model : *recorded().find("models")->as_array()) {
      const facts::Value& config = *model.find("config");
      SCOPED_TRACE(codec::to_json(config, 0));
      const auto size = [&](const char* key, std::int64_t otherwise) {
        const facts::Value* own = model.find(key);
        return own != nullptr ? *own->as_whole() : otherwise;
      };
      SampleShape sample;
      sample.batch = *recorded().find("batch")->as_whole();
      sample.sequence = size("sequence", *recorded().find("sequence")->as_whole());
      sample.height = sample.width = size("side", 0);
      const auto graph = build({"recorded", config, ""}, sample);
      ASSERT_TRUE(graph) << to_text(graph.error());
      check(*graph, model);
    }
  }
};

TEST_F(StateDict, HasTheNamesAndShapesOfTransformers) {
  for_each_model([](const Graph& graph, const facts::Value& model) {
    EXPECT_EQ(weights_of(graph), shapes_from(*model.find("weights")));
  });
}

TEST_F(StateDict, CountsTiedWeightsOnce) {
  for_each_model([](const Graph& graph, const facts::Value& model) {
    EXPECT_EQ(parameter_count(graph), Parameters(*model.find("parameters")->as_whole()));
  });
}

TEST_F(StateDict, ModulesPutOutWhatTransformersPutsOut) {
  for_each_model([](const Graph& graph, const facts::Value& model) {
    const auto recorded_outputs = shapes_from(*model.find("outputs"));
    for (const auto& [name, shape] : outputs_of(graph)) {
      EXPECT_EQ(elements(shape), recorded_elements(recorded_outputs, name)) << name;
    }
  });
}

TEST_F(StateDict, MultipliesWhatTransformersMultiplies) {
  for_each_model([](const Graph& graph, const facts::Value& model) {
    const auto recorded_flops = static_cast<double>(*model.find("linear_flops")->as_whole());
    EXPECT_DOUBLE_EQ(linear_flops(graph).value(), recorded_flops);
  });
}

TEST_F(StateDict, CoversEveryKnownFamily) {
  std::set<std::string> seen;
  for_each_model([&](const Graph& graph, const facts::Value&) { seen.insert(graph.model_type); });
  // Of other libraries than transformers: pictures_test.cpp, megatron_gpt_test.cpp,
  // recommenders_test.cpp, layers_test.cpp, diffusion_families_test.cpp, families_test.cpp
  // (NVIDIA's Transformer-XL), speech_test.cpp, hugging_face_networks_test.cpp.
  seen.insert({"AutoencoderKL",
               "AutoencoderKLCogVideoX",
               "AutoencoderKLHunyuanVideo",
               "AutoencoderKLLTXVideo",
               "AutoencoderKLWan",
               "CLIPTextModel",
               "CLIPTextModelWithProjection",
               "CogVideoXTransformer3DModel",
               "DiTTransformer2DModel",
               "FluxTransformer2DModel",
               "HunyuanVideoTransformer3DModel",
               "LTXVideoTransformer3DModel",
               "PixArtTransformer2DModel",
               "SD3Transformer2DModel",
               "T5EncoderModel",
               "WanTransformer3DModel",
               "UNet2DConditionModel",
               "dcn",
               "dlrm",
               "efficientnet",
               "hubert",
               "layers",
               "llama4",
               "megatron_gpt",
               "megatron_t5",
               "mobilenet_v1",
               "mobilenet_v2",
               "nemotron_h",
               "regnet",
               "timm_resnet",
               "timm_vision_transformer",
               "torchvision_resnet",
               "transfo-xl",
               "wav2vec2",
               "whisper",
               "wide_deep"});
  const std::vector<std::string> known = known_model_types();
  EXPECT_EQ(seen, std::set<std::string>(known.begin(), known.end()));
}

}  // namespace
}  // namespace steelyard::model
