#include <fmt/format.h>

#include "cli/completion.h"
#include "codec/codec.h"

namespace steelyard::cli {
namespace {

// What each value name of command.h stands for.
using Offers = std::map<std::string, Offer, std::less<>>;

Result<Offer> ids_of(const catalog::Catalog& catalog, catalog::Kind kind, bool files) {
  STEELYARD_TRY(entries, catalog.list(kind));
  Offer offer;
  offer.files = files;
  for (const catalog::Entry& entry : entries) offer.words.push_back(entry.id);
  return offer;
}

Result<Offers> offers_of(const catalog::Catalog& catalog) {
  Offers offers;
  STEELYARD_TRY(gpus, ids_of(catalog, catalog::Kind::gpus, false));
  STEELYARD_TRY(machines, ids_of(catalog, catalog::Kind::machines, true));
  STEELYARD_TRY(models, ids_of(catalog, catalog::Kind::models, true));
  offers["GPU"] = gpus;
  offers["MACHINE"] = machines;
  offers["MODEL"] = models;
  offers["WHAT"] = {.words = {"vram", "ram", "feed"}};
  offers["FILE"] = offers["FOLDER"] = offers["FILE_OR_FOLDER"] = {.words = {}, .files = true};
  Offer keys{.words = codec::job_keys(), .files = false, .unfinished = true};
  for (std::string& key : keys.words) key += '=';
  offers["KEY=VALUE"] = std::move(keys);
  return offers;
}

Offer offer_for(const CLI::Option& option, const Offers& offers) {
  if (auto choices = choices_of(option); !choices.empty()) return {.words = std::move(choices)};
  const auto found = offers.find(option.get_type_name());
  return found == offers.end() ? Offer{} : found->second;
}

void append(Offer& to, const Offer& more) {
  to.words.insert(to.words.end(), more.words.begin(), more.words.end());
  to.files = to.files || more.files;
}

CommandWords words_of_command(const CLI::App& command, const Offers& offers) {
  CommandWords words{.name = command.get_name(),
                     .description = command.get_description(),
                     .options = {},
                     .plain = {},
                     .after = {}};
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_positional()) {
      append(words.plain, offer_for(*option, offers));
      continue;
    }
    const bool takes_value = option->get_items_expected_max() > 0;
    for (const std::string& name : option->get_lnames()) {
      words.options.push_back({"--" + name, option->get_description(), takes_value});
      words.plain.words.push_back("--" + name);
      if (takes_value) words.after["--" + name] = offer_for(*option, offers);
    }
  }
  return words;
}

}  // namespace

Result<std::vector<CommandWords>> words_of(const CLI::App& tree, const catalog::Catalog& catalog) {
  STEELYARD_TRY(offers, offers_of(catalog));
  std::vector<CommandWords> commands;
  for (const CLI::App* command : tree.get_subcommands(nullptr)) {
    commands.push_back(words_of_command(*command, offers));
    if (command->get_name() == "show") {  // its second word depends on its first
      commands.back().after["gpu"] = offers["GPU"];
      commands.back().after["machine"] = {.words = offers["MACHINE"].words};
      commands.back().after["model"] = {.words = offers["MODEL"].words};
    }
  }
  return commands;
}

}  // namespace steelyard::cli
