// catalog/confidence/measured.tsv (schema steelyard.evidence/1): one short row per measured figure,
// cells apart by tabs.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "facts/evidence.h"

namespace steelyard::codec {

[[nodiscard]] Result<std::vector<facts::Evidence>> evidence_from(std::string_view text,
                                                                 const std::string& name);

// The whole file, one row a line; `made_by`: the command that wrote it.
[[nodiscard]] std::string evidence_text(std::span<const facts::Evidence> rows,
                                        const std::string& made_by);

}  // namespace steelyard::codec
