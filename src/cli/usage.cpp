#include "cli/usage.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/suggest.h"
#include "base/text.h"
#include "cli/command.h"

namespace steelyard::cli {
namespace {

std::vector<std::string> command_names(const CLI::App& tree) {
  std::vector<std::string> names;
  for (const CLI::App* command : tree.get_subcommands(nullptr))
    names.push_back(command->get_name());
  return names;
}

std::vector<std::string> option_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

const CLI::App& chosen_command(const CLI::App& tree) {
  const std::vector<CLI::App*> parsed = tree.get_subcommands();
  return parsed.empty() ? tree : *parsed.back();
}

std::string called(const CLI::App& command) {
  return command.get_parent() == nullptr ? "steelyard" : "steelyard " + command.get_name();
}

std::string did_you_mean(const std::string& misspelt, const std::vector<std::string>& known) {
  const auto near = nearest_name(misspelt, known);
  return near ? fmt::format("did you mean \"{}\"?", *near) : std::string();
}

Error unknown_option(const CLI::App& command, const std::string& argument) {
  const std::string option = argument.substr(0, argument.find('='));
  const std::vector<std::string> names = option_names(command);
  const std::string near = did_you_mean(option, names);
  return {.code = ErrorCode::unknown_name,
          .subject = called(command) + ": unknown option",
          .found = "\"" + printable(option) + "\"",
          .accepted = listed(names),
          .hint = near.empty() ? fmt::format("see {} --help", called(command)) : near};
}

Error surplus_argument(const CLI::App& command, const std::string& argument) {
  // As some programs take them: --set A=1 B=2.
  const bool setting =
      argument.find('=') != std::string::npos && command.get_option_no_throw("--set") != nullptr;
  const std::string hint = setting ? fmt::format("each key takes its own --set: --set {}", argument)
                                   : fmt::format("see {} --help", called(command));
  return {.code = ErrorCode::bad_input,
          .subject = called(command) + ": one argument too many",
          .found = "\"" + printable(argument) + "\"",
          .hint = printable(hint)};
}

}  // namespace

Result<void> check_command(const CLI::App& tree, const std::vector<std::string>& arguments) {
  if (arguments.empty() || arguments.front().starts_with("-")) return {};
  const std::string& word = arguments.front();
  const std::vector<std::string> names = command_names(tree);
  for (const std::string& name : names) {
    if (name == word) return {};
  }
  std::error_code ignored;
  const bool is_file = std::filesystem::is_regular_file(word, ignored);
  const std::string hint = is_file ? fmt::format("to plan that file: steelyard plan {}", word)
                                   : did_you_mean(word, names);
  return fail({.code = ErrorCode::unknown_name,
               .subject = "command",
               .found = "\"" + printable(word) + "\"",
               .accepted = listed(names),
               .hint = hint.empty() ? "see steelyard --help" : hint});
}

Error usage_error(const CLI::App& tree, const CLI::ParseError& refusal) {
  const CLI::App& command = chosen_command(tree);
  const std::vector<std::string> rest = tree.remaining(true);
  if (dynamic_cast<const CLI::ExtrasError*>(&refusal) != nullptr && !rest.empty()) {
    return rest.front().starts_with("-") ? unknown_option(command, rest.front())
                                         : surplus_argument(command, rest.front());
  }
  return {.code = ErrorCode::bad_input,
          .subject = fmt::format("{}: {}", called(command), refusal.what()),
          .hint = fmt::format("see {} --help", called(command))};
}

Result<void> check_choices(const CLI::App& tree) {
  const CLI::App& command = chosen_command(tree);
  for (const CLI::Option* option : command.get_options()) {
    const std::vector<std::string> choices = choices_of(*option);
    if (choices.empty()) continue;
    for (const std::string& given : option->results()) {
      if (std::find(choices.begin(), choices.end(), given) != choices.end()) continue;
      return fail({.code = ErrorCode::unknown_name,
                   .subject = fmt::format("{}: {}", called(command), option->get_name()),
                   .found = "\"" + printable(given) + "\"",
                   .accepted = listed(choices),
                   .hint = did_you_mean(given, choices)});
    }
  }
  return {};
}

}  // namespace steelyard::cli
