// The error for a name that the catalogue does not have.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace steelyard::catalog {

// `kind` is the word of the command: `steelyard list gpus`. Ids are compared with the name as it is
// and with its last part in small letters ("meta-llama/Llama-3.1-8B" is near "llama-3.1-8b").
[[nodiscard]] Error unknown(std::string_view subject, std::string_view name, std::string_view kind,
                            std::span<const std::string> ids);

}  // namespace steelyard::catalog
