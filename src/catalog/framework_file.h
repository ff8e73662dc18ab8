// One framework's profile as a table: its file laid over the file it extends, each with the
// variations that the versions of the software call for.
//
//   extends = "pytorch"
//   [versions]                 what the file describes, by package; a job's `versions` says
//   otherwise torch = "2.6"
//   [[variations]]             applies below `before`, from `from` on, or between them
//   package = "torch"
//   before = "1.11"
//   source = "where that is seen"
//   operators.softmax = "keeps_input"
#pragma once

#include <compare>
#include <string>
#include <string_view>

#include "base/error.h"
#include "catalog/files.h"
#include "facts/value.h"

namespace steelyard::catalog {

// `versions` is null or an object of texts (facts::Job::versions). The result has no `extends` and
// no `variations`; its `versions` are those in effect, without the empty ones. Errors: a package
// that the profile does not name, a version that is no row of numbers, a key or word that
// framework_words.toml does not have, a chain of profiles without end.
[[nodiscard]] Result<facts::Value> framework_table(Files& files, const std::string& name,
                                                   const facts::Value& versions);

// Whether text is digits joined by dots: "2.6", "2024.05".
[[nodiscard]] bool is_version(std::string_view text);
// By numbers, not by letters: 1.9 is less than 1.11, and 2 equals 2.0.
[[nodiscard]] std::strong_ordering compare_versions(std::string_view left, std::string_view right);

}  // namespace steelyard::catalog
