#include "codec/reader.h"

#include <algorithm>
#include <limits>

namespace steelyard::codec {
namespace {

// "micro_batch" of "train.micro_batch".
std::string_view last_part(std::string_view key) {
  const std::size_t dot = key.rfind('.');
  return dot == std::string_view::npos ? key : key.substr(dot + 1);
}

}  // namespace

std::optional<int> Reading::line(std::string_view path) const {
  if (lines == nullptr || is_setting(path)) return std::nullopt;
  return line_of_key(*lines, path);
}

// A key is set by --set when it, or a table around it, or a key inside of it was set there.
bool Reading::is_setting(std::string_view path) const {
  if (settings == nullptr) return false;
  for (std::string_view around = path; !around.empty();) {
    if (settings->contains(around)) return true;
    const std::size_t cut = around.find_last_of(".[");
    around = cut == std::string_view::npos ? std::string_view() : around.substr(0, cut);
  }
  const std::string inside = std::string(path) + ".";
  const auto next = settings->lower_bound(inside);
  return next != settings->end() && next->starts_with(inside);
}

void Reading::complain(std::string path, Error new_error) {
  new_error.subject = std::move(path);
  new_error.file = is_setting(new_error.subject) ? "--set" : file;
  new_error.line = line(new_error.subject);
  constexpr int kNoLine = std::numeric_limits<int>::max();
  if (error && error->line.value_or(kNoLine) <= new_error.line.value_or(kNoLine)) return;
  error = std::move(new_error);
}

void Reading::came_from_job(const std::string& path) {
  if (origins == nullptr) return;
  (*origins)[path] = {.origin = facts::Origin::job, .line = line(path)};
}

Result<void> Reading::outcome() const {
  if (error) return fail(*error);
  return {};
}

const facts::Value* Reader::take(std::string_view name, const Rule& rule) {
  known_.emplace_back(name);
  if (members_ != nullptr) {
    for (const auto& [key, value] : *members_) {
      if (key == name) return &value;
    }
  }
  if (rule.required) {
    reading_.complain(joined(path_, name), {.code = ErrorCode::missing_value,
                                            .subject = {},
                                            .found = "no such key",
                                            .accepted = rule.about,
                                            .hint = {},
                                            .file = {},
                                            .line = {}});
  }
  return nullptr;
}

void Reader::constant(std::string_view name, const char* expected) {
  const facts::Value* value = take(name, required(about(expected)));
  if (value == nullptr || *value == facts::Value(expected)) return;
  reading_.complain(joined(path_, name), wrong(*value, json_text(expected)));
}

void Reader::finish() {
  if (members_ == nullptr) return;
  for (const auto& [key, value] : *members_) {
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    Error error{.code = ErrorCode::unknown_name,
                .subject = {},
                .found = "an unknown key",
                .accepted = listed(known_, known_.size()),
                .hint = {},
                .file = {},
                .line = {}};
    if (const auto near = nearest_name(key, known_)) {
      error.hint = fmt::format("did you mean {}?", joined(path_, *near));
    } else if (reading_.all_keys != nullptr) {
      for (const auto& candidate : *reading_.all_keys) {
        if (last_part(candidate) == key) error.hint = fmt::format("did you mean {}?", candidate);
      }
    }
    reading_.complain(joined(path_, key), std::move(error));
  }
}

}  // namespace steelyard::codec
