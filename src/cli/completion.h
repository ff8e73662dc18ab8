// Shell completion, generated from the command tree, the keys of the job file and the catalogue.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "cli/command.h"

namespace steelyard::cli {

// What may stand at one place of the line.
struct Offer {
  std::vector<std::string> words;
  bool files = false;       // also file names
  bool unfinished = false;  // a word is followed by more ("train.micro_batch="): add no blank
};

struct OptionWords {
  std::string name;  // "--set"
  std::string description;
  bool takes_value = false;
};

struct CommandWords {
  std::string name;
  std::string description;
  std::vector<OptionWords> options;
  Offer plain;                         // where nothing special is expected
  std::map<std::string, Offer> after;  // by the word before: "--gpu", or "gpu" of `show gpu`
};

[[nodiscard]] Result<std::vector<CommandWords>> words_of(const CLI::App& tree,
                                                         const catalog::Catalog& catalog);

[[nodiscard]] std::string bash_completion(const std::vector<CommandWords>& commands);
[[nodiscard]] std::string zsh_completion(const std::vector<CommandWords>& commands);
[[nodiscard]] std::string fish_completion(const std::vector<CommandWords>& commands);

}  // namespace steelyard::cli
