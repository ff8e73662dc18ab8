#include <memory>
#include <ostream>

#include "cli/completion.h"

namespace steelyard::cli {
namespace {

Result<ExitStatus> run_completion(const Session& session, const std::string& shell) {
  STEELYARD_TRY(catalog, open_catalog(session));
  STEELYARD_TRY(commands, words_of(*session.tree, catalog));
  session.terminal.out << (shell == "bash"  ? bash_completion(commands)
                           : shell == "zsh" ? zsh_completion(commands)
                                            : fish_completion(commands));
  return ExitStatus::success;
}

}  // namespace

void add_completion(CLI::App& tree, Session& session) {
  CLI::App& command =
      add_command(tree, "completion", "Print a script that completes commands, keys and names",
                  {"source <(steelyard completion bash)",
                   "steelyard completion zsh > \"${fpath[1]}/_steelyard\"",
                   "steelyard completion fish > ~/.config/fish/completions/steelyard.fish"});
  const auto shell = std::make_shared<std::string>();
  command.add_option("shell", *shell, "Your shell")->type_name("bash|zsh|fish")->required();
  add_catalog_option(command, session);
  command.callback([&session, shell] {
    session.chosen = [&session, shell] { return run_completion(session, *shell); };
  });
}

}  // namespace steelyard::cli
