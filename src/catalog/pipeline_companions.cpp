#include "catalog/pipeline_companions.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "base/suggest.h"
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

Error wrong_part(const std::string& part, std::string found, std::string accepted,
                 std::string hint = {}) {
  return Error{.code = ErrorCode::bad_input,
               .subject = part.empty() ? "model.pipeline" : "model.pipeline." + part,
               .found = std::move(found),
               .accepted = std::move(accepted),
               .hint = std::move(hint)};
}

// What model.pipeline says of a part: how it is held; nothing where it is left out.
Result<std::optional<facts::CompanionHeld>> held_as(const facts::Value& wishes,
                                                    const std::string& part) {
  const facts::Value* wish = wishes.find(part);
  if (wish == nullptr) return facts::CompanionHeld::always;
  const std::string* word = wish->as_text();
  if (word != nullptr && *word == "none") return std::optional<facts::CompanionHeld>();
  if (word != nullptr) {
    if (const auto held = facts::from_name<facts::CompanionHeld>(*word)) return held;
  }
  return fail(wrong_part(part, word != nullptr ? fmt::format("\"{}\"", *word) : wish->kind_name(),
                         "always, load, cpu or none"));
}

// The folder of the pipeline, where model.config names one.
std::optional<fs::path> pipeline_of(const facts::Job& job, const fs::path& folder) {
  const std::string* name = std::get_if<std::string>(&job.model.config);
  if (name == nullptr || name->empty()) return std::nullopt;
  fs::path pipeline = *name;
  if (pipeline.filename() == "model_index.json") pipeline = pipeline.parent_path();
  std::error_code trouble;
  if (!fs::is_regular_file(folder / pipeline / "model_index.json", trouble)) return std::nullopt;
  return pipeline;
}

Result<void> names_found_parts(const facts::Value& wishes, const std::vector<std::string>& parts) {
  if (wishes.as_object() == nullptr) return {};
  for (const auto& [part, wish] : *wishes.as_object()) {
    if (std::find(parts.begin(), parts.end(), part) != parts.end()) continue;
    const auto nearest = nearest_name(part, parts);
    return fail(wrong_part(part, "no part with a config.json beside the denoiser",
                           parts.empty() ? "nothing: the pipeline names none" : listed(parts),
                           nearest ? "did you mean " + *nearest + "?" : ""));
  }
  return {};
}

}  // namespace

Result<std::vector<facts::Companion>> pipeline_companions(const facts::Job& job,
                                                          const fs::path& folder) {
  std::vector<facts::Companion> companions;
  const facts::Value& wishes = job.model.pipeline;
  const std::optional<fs::path> pipeline = pipeline_of(job, folder);
  const bool lists = job.origins.contains("model.companions");
  if (wishes.as_object() != nullptr && (!pipeline || lists)) {
    return fail(wrong_part("", lists ? "beside model.companions" : "a model of one file",
                           lists ? "one of the two" : "the folder of a diffusers pipeline",
                           lists ? "" : "model.companions names models beside any model"));
  }
  if (!pipeline || lists) return companions;
  STEELYARD_TRY(parts, codec::read_value(folder / *pipeline / "model_index.json"));
  if (parts.as_object() == nullptr) return companions;
  std::error_code trouble;
  std::vector<std::string> found;
  for (const auto& [part, entry] : *parts.as_object()) {
    if (!is_companion(part) || !is_named(entry)) continue;
    if (!fs::is_regular_file(folder / *pipeline / part / "config.json", trouble)) continue;
    found.push_back(part);
    STEELYARD_TRY(held, held_as(wishes, part));
    if (held) companions.push_back({.config = (*pipeline / part).string(), .held = *held});
  }
  STEELYARD_CHECK(names_found_parts(wishes, found));
  return companions;
}

}  // namespace steelyard::catalog
