#include "codec/model_tables.h"

#include <fmt/format.h>

#include <utility>

namespace steelyard::codec {
namespace {

Error misfit(const std::string& name, const Lines* lines, const std::string& key,
             std::string found) {
  Error error{.code = ErrorCode::bad_input,
              .subject = key,
              .found = std::move(found),
              .accepted = "one table [[model]] with role = \"policy\", or without a role",
              .hint = "the others are a reference, a reward model or a critic",
              .file = name,
              .line = {}};
  if (lines != nullptr) error.line = line_of_key(*lines, key);
  return error;
}

bool is_policy(const facts::Value& table) {
  const facts::Value* role = table.find("role");
  if (role == nullptr || role->is_null()) return true;
  return role->as_text() != nullptr && *role->as_text() == "policy";
}

// A part of a pipeline, by the name that it has there: what the model reads is made by it.
bool is_companion(const facts::Value& table) {
  const facts::Value* role = table.find("role");
  const std::string* text = role != nullptr ? role->as_text() : nullptr;
  return text != nullptr && (*text == "vae" || text->starts_with("text_encoder"));
}

void move_lines(Lines& lines, const std::string& from, const std::string& to) {
  Lines moved;
  for (auto at = lines.lower_bound(from); at != lines.end() && at->first.starts_with(from);) {
    const std::string rest = at->first.substr(from.size());
    const bool inside = rest.empty() || rest.front() == '.' || rest.front() == '[';
    if (!inside) {
      ++at;
      continue;
    }
    moved.emplace(to + rest, at->second);
    at = lines.erase(at);
  }
  lines.insert(moved.begin(), moved.end());
}

void drop_role(facts::Value& table) {
  auto* members = table.as_object();
  if (members != nullptr) std::erase_if(*members, [](const auto& m) { return m.first == "role"; });
}

}  // namespace

Result<void> join_models(facts::Value& job, Lines* lines, const std::string& name) {
  facts::Value* model = nullptr;
  if (auto* members = job.as_object()) {
    for (auto& [key, value] : *members) {
      if (key == "model") model = &value;
    }
  }
  if (model == nullptr) return {};
  if (model->as_array() == nullptr) {
    if (model->as_object() != nullptr && model->find("role") != nullptr) {
      if (!is_policy(*model)) return fail(misfit(name, lines, "model.role", "no policy"));
      drop_role(*model);
    }
    return {};
  }
  const facts::Array tables = *model->as_array();
  facts::Value policy;
  facts::Array roles, companions;
  for (std::size_t i = 0; i < tables.size(); ++i) {
    const std::string from = fmt::format("model[{}]", i);
    if (is_companion(tables[i])) {
      const std::string to = fmt::format("model.companions[{}]", companions.size());
      if (lines != nullptr) move_lines(*lines, from, to);
      companions.push_back(tables[i]);
      drop_role(companions.back());
      continue;
    }
    if (!is_policy(tables[i])) {
      if (lines != nullptr) move_lines(*lines, from, fmt::format("model.roles[{}]", roles.size()));
      roles.push_back(tables[i]);
      continue;
    }
    if (!policy.is_null()) return fail(misfit(name, lines, from, "a second policy"));
    policy = tables[i];
    if (lines != nullptr) move_lines(*lines, from, "model");
  }
  if (policy.as_object() == nullptr) return fail(misfit(name, lines, "model", "no policy"));
  drop_role(policy);
  if (!companions.empty() && policy.find("companions") != nullptr) {
    return fail(misfit(name, lines, "model.companions", "a list beside tables of that role"));
  }
  if (!companions.empty()) policy.set("companions", facts::Value(std::move(companions)));
  if (!roles.empty()) policy.set("roles", facts::Value(std::move(roles)));
  *model = std::move(policy);
  return {};
}

}  // namespace steelyard::codec
