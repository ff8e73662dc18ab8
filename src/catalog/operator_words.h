// What framework profiles may say under [operators]: catalog/framework_words.toml, one table a key.
//
//   [checkpoint]
//   about = "what recomputes a layer"
//   words = { early_stop = "ends at the last saved tensor", whole = "ends at the result" }
//   [shuffle_buffer]
//   about = "samples in the buffer that shuffles records"
//   takes = "number"             or "text"
#pragma once

#include <filesystem>

#include "base/error.h"
#include "facts/value.h"

namespace steelyard::catalog {

// `operators`: the table as `file` has it, null where it has none. Errors: a key that is not in
// `known`, a word that its key does not take.
[[nodiscard]] Result<void> check_operator_words(const facts::Value& known,
                                                const facts::Value* operators,
                                                const std::filesystem::path& file);

}  // namespace steelyard::catalog
