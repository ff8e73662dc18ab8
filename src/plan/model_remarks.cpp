#include "plan/model_remarks.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/suggest.h"
#include "facts/stored_tensors.h"
#include "model/stored_weights.h"
#include "step/adapter_targets.h"
#include "step/adapters.h"
#include "step/fused_projection.h"

namespace steelyard::plan {
namespace {

// "fp8", "mxfp4", "bitsandbytes"
std::string method_of(const facts::Value& quantization) {
  const facts::Value* method = quantization.find("quant_method");
  if (method != nullptr && method->as_text() != nullptr) return *method->as_text();
  // Files of bitsandbytes before transformers 4.33 say it by flags alone.
  return quantization.find("load_in_4bit") != nullptr ? "bitsandbytes" : "a quantized type";
}

// transformers loads such weights into the training's own type where the configuration asks for it
// (Mxfp4Config(dequantize=True), FineGrainedFP8Config(dequantize=True)); bitsandbytes' 4-bit files
// are the base of QLoRA.
std::string of_quantization(const facts::ModelSource& source, const facts::Job& job) {
  const facts::Value* quantization = source.config.find("quantization_config");
  if (quantization == nullptr || quantization->as_object() == nullptr) return "";
  const bool held = job.train.base_quantization != facts::BaseQuantization::none;
  return fmt::format("the configuration stores its weights as {} (quantization_config): planned {}",
                     method_of(*quantization),
                     held ? fmt::format("as train.base_quantization says, {}",
                                        facts::name_of(job.train.base_quantization))
                          : "dequantized, in the types of train.precision");
}

std::string of_class(const facts::ModelSource& source) {
  const facts::Value* classes = source.config.find("architectures");
  const facts::Array* list = classes != nullptr ? classes->as_array() : nullptr;
  if (list == nullptr || list->empty() || list->front().as_text() == nullptr) return "";
  const std::string& name = *list->front().as_text();
  const bool bare = name.ends_with("Model") && !name.ends_with("LMHeadModel") &&
                    !name.ends_with("MTModel") && source.config.find("vision_config") == nullptr;
  if (!bare) return "";
  return name + " has no head: planned with the family's usual one and its loss";
}

// DeepSeek-V3, GLM-4.5: files hold layers that their classes do not build.
std::string of_further_predictions(const facts::ModelSource& source, const model::Graph& graph) {
  const facts::Value* further = source.config.find("num_nextn_predict_layers");
  const std::int64_t* layers = further != nullptr ? further->as_whole() : nullptr;
  if (layers == nullptr || *layers <= 0) return "";
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      const bool built = std::ranges::any_of(block.weights, [](const model::Weight& weight) {
        return weight.name.find("mtp") != std::string::npos;
      });
      if (built) return "";
    }
  }
  return fmt::format(
      "layers that predict further tokens (num_nextn_predict_layers = {}) are left out by the "
      "model's "
      "class, and so by this plan; [import] megatron with mtp-num-layers has them",
      *layers);
}

}  // namespace

std::vector<std::string> model_remarks(const facts::ModelSource& source, const model::Graph& graph,
                                       const facts::Job& job,
                                       const facts::FrameworkProfile& profile) {
  std::vector<std::string> remarks;
  for (std::string& remark : std::vector{of_quantization(source, job), of_class(source),
                                         of_further_predictions(source, graph)}) {
    if (!remark.empty()) remarks.push_back(std::move(remark));
  }
  if (source.stored != nullptr) {
    const auto made = model::newly_made(graph, *source.stored);
    if (!made.empty()) {
      remarks.push_back("the file of weights lacks the head (" + listed(made, 4) +
                        "): planned as made anew");
    }
  }
  // A target may name a companion's modules, which are not in this graph.
  if (job.train.method == facts::Method::full || !job.model.companions.empty()) return remarks;
  const auto habits = step::adapter_habits_of(profile, graph.library);
  const auto projected = step::with_own_projections(graph, profile);
  if (!habits || !projected) return remarks;
  const auto idle =
      step::idle_targets(*projected, job.train.lora.targets, habits->adapts_fused_parts);
  if (!idle.empty()) {
    remarks.push_back("the model has no module " + listed(idle) +
                      " of train.lora.targets: passed over, as PEFT does");
  }
  return remarks;
}

}  // namespace steelyard::plan
