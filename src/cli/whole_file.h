// A file that appears whole or not at all.
#pragma once

#include <string>

#include "base/error.h"

namespace steelyard::cli {

// Written under another name beside it, then renamed: whoever reads `file` finds the old text or
// the new one. `option` names what the person gave, for the message. Errors: it cannot be written.
[[nodiscard]] Result<void> write_whole_file(const std::string& file, const std::string& text,
                                            const std::string& option);

}  // namespace steelyard::cli
