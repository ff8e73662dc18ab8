#include "catalog/pipeline_companions.h"

#include <string>
#include <utility>
#include <variant>

#include "codec/codec.h"

namespace steelyard::catalog {

namespace {

namespace fs = std::filesystem;

// diffusers' names of the parts that training scripts put on the card beside the denoiser
// (pipelines/*: register_modules(vae=..., text_encoder=..., text_encoder_2=..., transformer=...)).
bool is_companion(const std::string& part) {
  return part == "vae" || part.starts_with("text_encoder");
}

// A part that was left out is [null, null].
bool is_named(const facts::Value& entry) {
  const facts::Array* pair = entry.as_array();
  return pair != nullptr && pair->size() == 2 && (*pair)[1].as_text() != nullptr;
}

}  // namespace

Result<std::vector<facts::Companion>> pipeline_companions(const facts::Job& job,
                                                          const fs::path& folder) {
  std::vector<facts::Companion> companions;
  const std::string* name = std::get_if<std::string>(&job.model.config);
  if (name == nullptr || name->empty() || job.origins.contains("model.companions")) {
    return companions;
  }
  fs::path pipeline = *name;
  if (pipeline.filename() == "model_index.json") pipeline = pipeline.parent_path();
  std::error_code trouble;
  const fs::path index = folder / pipeline / "model_index.json";
  if (!fs::is_regular_file(index, trouble)) return companions;
  STEELYARD_TRY(parts, codec::read_value(index));
  if (parts.as_object() == nullptr) return companions;
  for (const auto& [part, entry] : *parts.as_object()) {
    if (!is_companion(part) || !is_named(entry)) continue;
    if (!fs::is_regular_file(folder / pipeline / part / "config.json", trouble)) continue;
    companions.push_back({.config = (pipeline / part).string()});
  }
  return companions;
}

}  // namespace steelyard::catalog
