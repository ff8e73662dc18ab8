#include "cli/command.h"

#include "cli/probe_command.h"

namespace steelyard::cli {

CLI::App& add_command(CLI::App& tree, const std::string& name, const std::string& description,
                      const std::vector<std::string>& examples) {
  CLI::App& command = *tree.add_subcommand(name, description);
  std::string footer = "Examples:";
  for (const std::string& example : examples) footer += "\n  " + example;
  command.footer(footer);
  command.get_formatter()->column_width(34);
  return command;
}

void add_catalog_option(CLI::App& command, Session& session) {
  command
      .add_option("--catalog", session.catalog_folder,
                  "Folder of data files to use instead of the program's own")
      ->type_name("FOLDER");
}

Result<catalog::Catalog> open_catalog(const Session& session) {
  if (session.catalog_folder.empty()) return catalog::Catalog::open(session.terminal.program);
  std::error_code failed;
  if (!std::filesystem::is_directory(session.catalog_folder, failed)) {
    return fail({.code = ErrorCode::unreadable,
                 .subject = "--catalog",
                 .found = "\"" + session.catalog_folder + "\", which is no folder",
                 .accepted = "a folder that holds gpus.json, machines.json, models/ ..."});
  }
  return catalog::Catalog::at(session.catalog_folder);
}

void add_all(CLI::App& tree, Session& session) {
  session.tree = &tree;
  add_plan(tree, session);
  add_why(tree, session);
  add_compare(tree, session);
  add_limits(tree, session);
  add_search(tree, session);
  add_ratio(tree, session);
  add_share(tree, session);
  add_explain(tree, session);
  add_model(tree, session);
  add_list(tree, session);
  add_show(tree, session);
  add_schema(tree, session);
  add_probe(tree, session);
  add_validate(tree, session);
  add_calibrate(tree, session);
  add_rehearse(tree, session);
  add_completion(tree, session);
}

std::vector<std::string> choices_of(const CLI::Option& option) {
  const std::string name = option.get_type_name();
  std::vector<std::string> choices;
  if (name.find('|') == std::string::npos) return choices;
  std::size_t start = 0;
  while (start <= name.size()) {
    const std::size_t bar = std::min(name.find('|', start), name.size());
    choices.push_back(name.substr(start, bar - start));
    start = bar + 1;
  }
  return choices;
}

}  // namespace steelyard::cli
