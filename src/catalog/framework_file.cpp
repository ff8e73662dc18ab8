#include "catalog/framework_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <vector>

#include "catalog/merge.h"
#include "catalog/operator_words.h"

namespace steelyard::catalog {
namespace {

constexpr std::size_t kLongestChain = 8;  // of profiles that extend one another
constexpr std::string_view kVersionRule = "numbers joined by dots, as text: \"2.6\"";

struct ProfileFile {
  facts::Value own{facts::Object{}};  // without the members below
  facts::Value versions{facts::Object{}};
  facts::Array variations;
  std::string extends;
  std::string path;
};

Error about(std::string subject, std::string found, std::string accepted, std::string file = {}) {
  return {.code = ErrorCode::bad_input,
          .subject = std::move(subject),
          .found = std::move(found),
          .accepted = std::move(accepted),
          .file = std::move(file)};
}

Result<ProfileFile> read_file(Files& files, const std::string& name) {
  const std::string relative = fmt::format("frameworks/{}.toml", name);
  STEELYARD_TRY(content, files.read(relative));
  ProfileFile file;
  file.path = (files.folder() / relative).string();
  const facts::Object* members = content->as_object();
  if (members == nullptr) return file;
  for (const auto& [key, value] : *members) {
    if (key == "extends" && value.as_text() != nullptr) {
      file.extends = *value.as_text();
    } else if (key == "versions" && value.as_object() != nullptr) {
      file.versions = value;
    } else if (key == "variations" && value.as_array() != nullptr) {
      file.variations = *value.as_array();
    } else {
      file.own.set(key, value);
    }
  }
  return file;
}

// The files of the chain, the one that extends nothing first.
Result<std::vector<ProfileFile>> read_chain(Files& files, const std::string& name) {
  std::vector<ProfileFile> chain;
  for (std::string next = name; !next.empty(); next = chain.back().extends) {
    if (chain.size() == kLongestChain) {
      return fail(about("extends", "a chain without end",
                        "the name of a profile that does not extend this one", chain.back().path));
    }
    STEELYARD_TRY(file, read_file(files, next));
    chain.push_back(std::move(file));
  }
  std::ranges::reverse(chain);
  return chain;
}

// A profile may say "" of a package: known, but no part of what it describes.
Result<void> check_versions(const facts::Value& versions, bool may_be_empty,
                            const std::string& file) {
  if (versions.as_object() == nullptr) return {};
  for (const auto& [package, version] : *versions.as_object()) {
    const std::string* text = version.as_text();
    if (text != nullptr && (is_version(*text) || (may_be_empty && text->empty()))) continue;
    return fail(about("versions." + package,
                      text != nullptr ? fmt::format("\"{}\"", *text) : version.kind_name(),
                      std::string(kVersionRule), file));
  }
  return {};
}

// What the profile describes, with what the job says of it.
Result<facts::Value> versions_in_effect(const std::vector<ProfileFile>& chain,
                                        const facts::Value& of_job) {
  facts::Value versions{facts::Object{}};
  for (const ProfileFile& file : chain) {
    STEELYARD_CHECK(check_versions(file.versions, true, file.path));
    for (const auto& [package, version] : *file.versions.as_object()) {
      versions.set(package, version);
    }
  }
  STEELYARD_CHECK(check_versions(of_job, false, ""));
  if (of_job.as_object() == nullptr) return versions;
  for (const auto& [package, version] : *of_job.as_object()) {
    if (versions.find(package) == nullptr) {
      std::string known;
      for (const auto& [name, _] : *versions.as_object()) {
        known += (known.empty() ? "" : ", ") + name;
      }
      Error error = about(
          "versions", fmt::format("\"{}\", which the framework's profile does not name", package),
          known.empty() ? "no versions" : known);
      error.code = ErrorCode::unknown_name;
      return fail(std::move(error));
    }
    versions.set(package, version);
  }
  return versions;
}

// The members of one variation, taken apart.
struct Variation {
  std::string package, from, before;
  facts::Value changes{facts::Object{}};
};

Result<Variation> variation_of(const facts::Value& table, const facts::Value& versions,
                               const std::string& file) {
  Variation variation;
  if (table.as_object() != nullptr) {
    for (const auto& [key, value] : *table.as_object()) {
      const std::string text = value.as_text() != nullptr ? *value.as_text() : "";
      if (key == "package") {
        variation.package = text;
      } else if (key == "from") {
        variation.from = text;
      } else if (key == "before") {
        variation.before = text;
      } else if (key != "source") {  // for people
        variation.changes.set(key, value);
      }
    }
  }
  if (versions.find(variation.package) == nullptr) {
    return fail(about("variations.package", fmt::format("\"{}\"", variation.package),
                      "a package of [versions]", file));
  }
  const bool bounded = !variation.from.empty() || !variation.before.empty();
  for (const std::string& bound : {variation.from, variation.before}) {
    if (bounded && (bound.empty() || is_version(bound))) continue;
    return fail(about("variations of " + variation.package, fmt::format("\"{}\"", bound),
                      fmt::format("`from` or `before`, {}", kVersionRule), file));
  }
  return variation;
}

bool applies(const Variation& variation, const facts::Value& versions) {
  const std::string& version = *versions.find(variation.package)->as_text();
  return !version.empty() &&
         (variation.from.empty() || compare_versions(version, variation.from) >= 0) &&
         (variation.before.empty() || compare_versions(version, variation.before) < 0);
}

}  // namespace

bool is_version(std::string_view text) {
  bool digit_before = false;
  for (const char letter : text) {
    const bool digit = letter >= '0' && letter <= '9';
    if (!digit && (letter != '.' || !digit_before)) return false;
    digit_before = digit;
  }
  return digit_before && text.size() <= 40;
}

std::strong_ordering compare_versions(std::string_view left, std::string_view right) {
  const auto next = [](std::string_view& rest) {
    const std::size_t dot = std::min(rest.find('.'), rest.size());
    std::uint64_t number = 0;  // stays so where there is nothing left, or more than it can hold
    std::from_chars(rest.data(), rest.data() + dot, number);
    rest.remove_prefix(std::min(dot + 1, rest.size()));
    return number;
  };
  while (!left.empty() || !right.empty()) {
    const std::uint64_t one = next(left);
    const std::uint64_t other = next(right);
    if (one != other) return one <=> other;
  }
  return std::strong_ordering::equal;
}

Result<facts::Value> framework_table(Files& files, const std::string& name,
                                     const facts::Value& versions) {
  STEELYARD_TRY(chain, read_chain(files, name));
  STEELYARD_TRY(in_effect, versions_in_effect(chain, versions));
  STEELYARD_TRY(words, files.read("framework_words.toml"));
  facts::Value table{facts::Object{}};
  for (const ProfileFile& file : chain) {
    STEELYARD_CHECK(check_operator_words(*words, file.own.find("operators"), file.path));
    merge(table, file.own);
    for (const facts::Value& entry : file.variations) {
      STEELYARD_TRY(variation, variation_of(entry, in_effect, file.path));
      STEELYARD_CHECK(
          check_operator_words(*words, variation.changes.find("operators"), file.path));
      if (applies(variation, in_effect)) merge(table, variation.changes);
    }
  }
  facts::Value stated{facts::Object{}};
  for (const auto& [package, version] : *in_effect.as_object()) {
    if (!version.as_text()->empty()) stated.set(package, version);
  }
  table.set("versions", stated);
  return table;
}

}  // namespace steelyard::catalog
