#include "catalog/tiers.h"

#include <algorithm>

#include "base/suggest.h"
#include "catalog/settings.h"
#include "codec/codec.h"

namespace steelyard::catalog {
namespace {

Error wrong(const std::filesystem::path& file, std::string subject, std::string accepted) {
  return {.code = ErrorCode::bad_input,
          .subject = std::move(subject),
          .accepted = std::move(accepted),
          .file = file.string()};
}

Result<facts::TierMix::Member> member_from(const facts::Value& table,
                                           const std::filesystem::path& file) {
  Settings settings(table, file);
  facts::TierMix::Member member{.file = settings.text("file"), .weight = settings.real("weight")};
  STEELYARD_CHECK(settings.finish());
  if (!(member.weight > 0.0)) return fail(wrong(file, "jobs.weight", "a number above 0"));
  member.file = (file.parent_path() / member.file).lexically_normal().string();
  return member;
}

Result<std::vector<facts::TierMix::Member>> members_from(const facts::Value& value,
                                                         const std::filesystem::path& file) {
  const facts::Value* jobs = value.find("jobs");
  if (jobs == nullptr || jobs->as_array() == nullptr || jobs->as_array()->empty()) {
    return fail(wrong(file, "jobs", "[[jobs]] tables with file and weight"));
  }
  std::vector<facts::TierMix::Member> members;
  for (const facts::Value& table : *jobs->as_array()) {
    STEELYARD_TRY(member, member_from(table, file));
    members.push_back(std::move(member));
  }
  return members;
}

}  // namespace

std::vector<std::string> tier_names(const Catalog& catalog) {
  std::vector<std::string> names;
  std::error_code failed;
  std::filesystem::directory_iterator folder(catalog.folder() / "tiers", failed);
  if (failed) return names;
  for (const auto& entry : folder) {
    if (entry.path().extension() == ".toml") names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

Result<facts::TierMix> tier_mix(const Catalog& catalog, std::string_view name) {
  const std::vector<std::string> known = tier_names(catalog);
  if (std::find(known.begin(), known.end(), name) == known.end()) {
    const auto near = nearest_name(name, known);
    return fail({.code = ErrorCode::unknown_name,
                 .subject = "--tier",
                 .found = std::string(name),
                 .accepted = listed(known),
                 .hint = near ? "did you mean \"" + *near + "\"?" : std::string()});
  }
  const std::filesystem::path file = catalog.folder() / "tiers" / (std::string(name) + ".toml");
  STEELYARD_TRY(value, codec::read_value(file));
  facts::Value head = value;  // without its list, which is read by itself
  if (facts::Object* keys = head.as_object()) {
    std::erase_if(*keys, [](const auto& member) { return member.first == "jobs"; });
  }
  Settings settings(head, file);
  facts::TierMix mix{.name = std::string(name), .about = settings.text("about")};
  mix.rule.low = settings.ratio("rule_low");
  mix.rule.high = settings.ratio("rule_high");
  mix.rule.open_ended = settings.flag("rule_open_ended");
  (void)settings.text("source");
  STEELYARD_CHECK(settings.finish());
  STEELYARD_TRY(members, members_from(value, file));
  mix.jobs = std::move(members);
  return mix;
}

}  // namespace steelyard::catalog
