// What the commands share: the session they run in, and the function that adds each to the tree.
//
// A command's add_ function declares its arguments and a callback that puts the work to do into
// Session::chosen; nothing runs while arguments are still being read.
//
// The value name of an option (CLI11's type name) is its contract: "a|b|c" is a closed list,
// checked for every command in one place; GPU, MACHINE, MODEL, FILE and KEY=VALUE tell the shells
// what to complete.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "catalog/catalog.h"
#include "cli/cli.h"

namespace steelyard::cli {

struct Session {
  const Terminal& terminal;
  const CLI::App* tree = nullptr;  // the whole command tree, for completion
  std::string catalog_folder;      // --catalog; empty: where the program finds it
  std::function<Result<ExitStatus>()> chosen;
};

void add_plan(CLI::App& tree, Session& session);
void add_why(CLI::App& tree, Session& session);
void add_compare(CLI::App& tree, Session& session);
void add_ratio(CLI::App& tree, Session& session);
void add_share(CLI::App& tree, Session& session);
void add_search(CLI::App& tree, Session& session);
void add_limits(CLI::App& tree, Session& session);
void add_explain(CLI::App& tree, Session& session);
void add_model(CLI::App& tree, Session& session);
void add_list(CLI::App& tree, Session& session);
void add_show(CLI::App& tree, Session& session);
void add_schema(CLI::App& tree, Session& session);
void add_validate(CLI::App& tree, Session& session);
void add_calibrate(CLI::App& tree, Session& session);
void add_rehearse(CLI::App& tree, Session& session);
void add_completion(CLI::App& tree, Session& session);

// A subcommand with the options every command has, and its examples below the help.
CLI::App& add_command(CLI::App& tree, const std::string& name, const std::string& description,
                      const std::vector<std::string>& examples);
void add_catalog_option(CLI::App& command, Session& session);
[[nodiscard]] Result<catalog::Catalog> open_catalog(const Session& session);

// The whole command tree.
void add_all(CLI::App& tree, Session& session);

// "a|b|c" -> a, b, c; empty when the value name is no closed list.
[[nodiscard]] std::vector<std::string> choices_of(const CLI::Option& option);

}  // namespace steelyard::cli
