// A shell command line (torchrun ... pretrain_gpt.py --num-layers 32 --swiglu) as an object of
// arguments. Nothing is executed and no variable is looked up.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "facts/value.h"

namespace steelyard::exchange {

// The words of a command as a POSIX shell splits them: quotes, backslashes, continued lines,
// comments. Errors: an open quote, $variables, `commands`, redirections and pipes.
[[nodiscard]] Result<std::vector<std::string>> shell_words(std::string_view text,
                                                           const std::string& name);

// Words from the first "--" argument on; behind the word that ends in .py when there is one.
// "--name value", "--name=value", "--name" alone is true, "--name a b" is a list. A later one
// replaces an earlier one, as argparse does.
[[nodiscard]] Result<facts::Value> parse_command_line(std::string_view text,
                                                      const std::string& name);

}  // namespace steelyard::exchange
