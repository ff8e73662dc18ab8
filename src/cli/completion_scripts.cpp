#include <fmt/format.h>

#include "cli/completion.h"

namespace steelyard::cli {
namespace {

constexpr const char* kProgramOptions = "--help --version";

// In single quotes, as all three shells read them. Fish also takes backslashes there.
std::string quoted(const std::string& text) {
  std::string safe = "'";
  for (const char c : text) {
    if (c == '\'') {
      safe += "'\\''";
    } else if (c == '\\') {
      safe += "\\\\";
    } else {
      safe += c;
    }
  }
  return safe + "'";
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

std::string command_list(const std::vector<CommandWords>& commands) {
  std::vector<std::string> names;
  for (const CommandWords& command : commands) names.push_back(command.name);
  return joined(names);
}

// The two nested `case` that bash and zsh share; `offer_line` writes what one place offers.
template <class OfferLine>
std::string nested_cases(const std::vector<CommandWords>& commands, const OfferLine& offer_line) {
  std::string text;
  for (const CommandWords& command : commands) {
    text += fmt::format("    {})\n      case \"$previous\" in\n", command.name);
    for (const auto& [previous, offer] : command.after) {
      text += fmt::format("        {}) {} ;;\n", previous, offer_line(offer));
    }
    text += fmt::format("        *) {} ;;\n      esac ;;\n", offer_line(command.plain));
  }
  return text;
}

}  // namespace

std::string bash_completion(const std::vector<CommandWords>& commands) {
  const auto offer_line = [](const Offer& offer) {
    return fmt::format("words={}{}{}", quoted(joined(offer.words)), offer.files ? " files=1" : "",
                       offer.unfinished ? " unfinished=1" : "");
  };
  std::string text = R"(# steelyard completion for bash. Use: source <(steelyard completion bash)
_steelyard() {
  # The words as typed: bash itself would split catalogue ids at ':' and settings at '='.
  local line="${COMP_LINE:0:COMP_POINT}" words='' files='' unfinished=''
  local -a typed
  read -ra typed <<< "$line"
  [[ $line == *' ' ]] && typed+=('')
  local count=${#typed[@]}
  local current="${typed[count-1]}" previous="${typed[count-2]}"
)";
  text += fmt::format("  if ((count <= 2)); then words='{} {}'\n", command_list(commands),
                      kProgramOptions);
  text += "  else case \"${typed[1]}\" in\n" + nested_cases(commands, offer_line);
  text += R"(  esac; fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  if [[ -n $files ]]; then
    local -a names
    mapfile -t names < <(compgen -f -- "$current")
    COMPREPLY+=("${names[@]}")
    compopt -o filenames 2>/dev/null
  fi
  [[ -n $unfinished ]] && compopt -o nospace 2>/dev/null
  # Bash replaces only what stands behind the last ':' or '='.
  if [[ $COMP_WORDBREAKS == *:* && $current == *[:=]* ]]; then
    local head="${current%"${current##*[:=]}"}"
    COMPREPLY=("${COMPREPLY[@]#"$head"}")
  fi
}
complete -F _steelyard steelyard
)";
  return text;
}

std::string zsh_completion(const std::vector<CommandWords>& commands) {
  const auto offer_line = [](const Offer& offer) {
    std::string line =
        fmt::format("compadd {}-- {}", offer.unfinished ? "-S '' " : "", joined(offer.words));
    if (offer.words.empty()) line = ":";
    return offer.files ? line + "; _files" : line;
  };
  std::string text = R"(#compdef steelyard
# steelyard completion for zsh. Use: steelyard completion zsh > "${fpath[1]}/_steelyard"
_steelyard() {
  local previous="${words[CURRENT-1]}"
)";
  text += fmt::format("  if ((CURRENT == 2)); then compadd -- {} {}; return; fi\n",
                      command_list(commands), kProgramOptions);
  text += "  case \"${words[2]}\" in\n" + nested_cases(commands, offer_line);
  return text +
         "  esac\n}\nif [[ $funcstack[1] == _steelyard ]]; then _steelyard \"$@\"; "
         "else compdef _steelyard steelyard; fi\n";
}

std::string fish_completion(const std::vector<CommandWords>& commands) {
  std::string text =
      "# steelyard completion for fish.\n"
      "# Use: steelyard completion fish > ~/.config/fish/completions/steelyard.fish\n"
      "complete -c steelyard -f\n"
      "complete -c steelyard -n __fish_use_subcommand -l help -d 'Show the help'\n"
      "complete -c steelyard -n __fish_use_subcommand -l version -d 'Show the version'\n";
  for (const CommandWords& command : commands) {
    const std::string here =
        fmt::format("complete -c steelyard -n '__fish_seen_subcommand_from {}'", command.name);
    text += fmt::format("complete -c steelyard -n __fish_use_subcommand -a {} -d {}\n",
                        command.name, quoted(command.description));
    for (const OptionWords& option : command.options) {
      text +=
          fmt::format("{} -l {} -d {}", here, option.name.substr(2), quoted(option.description));
      if (option.takes_value) {
        const Offer& offer = command.after.at(option.name);
        text += fmt::format(" -r{} -a {}", offer.files ? "F" : "f", quoted(joined(offer.words)));
      }
      text += "\n";
    }
    std::vector<std::string> words;
    for (const std::string& word : command.plain.words) {
      if (!word.starts_with("-")) words.push_back(word);
    }
    if (!words.empty()) text += fmt::format("{} -a {}\n", here, quoted(joined(words)));
    if (command.plain.files) text += here + " -F\n";
    for (const auto& [previous, offer] : command.after) {
      if (previous.starts_with("-")) continue;
      text += fmt::format(
          "complete -c steelyard -n '__fish_seen_subcommand_from {}; and "
          "__fish_seen_subcommand_from {}' -a {}\n",
          command.name, previous, quoted(joined(offer.words)));
    }
  }
  return text;
}

}  // namespace steelyard::cli
