#include <fmt/format.h>

#include <exception>
#include <ostream>

#include "base/quantity.h"
#include "cli/cli.h"
#include "cli/command.h"
#include "cli/usage.h"

namespace steelyard::cli {
namespace {

constexpr const char* kWelcome =
    "Steelyard weighs a training job against a server before anyone books it: what the GPUs hold,\n"
    "what the hosts hold, how fast a step is and what it waits for.\n"
    "\n"
    "Start with one of these:\n"
    "  steelyard plan examples/llama-3.1-8b-fsdp.toml              plan a job file\n"
    "  steelyard plan --model config.json --gpu h100-sxm-80gb      plan your own model's "
    "config.json\n"
    "  steelyard list gpus                                         what the catalogue knows\n"
    "  steelyard --help                                            every command\n";

ExitStatus report_error(const Terminal& terminal, const Error& error) {
  terminal.err << "steelyard: " << to_text(error) << "\n";
  return error.code == ErrorCode::internal ? ExitStatus::internal_error : ExitStatus::bad_input;
}

Result<ExitStatus> interpret(const std::vector<std::string>& arguments, const Terminal& terminal) {
  if (arguments.empty()) {
    terminal.out << kWelcome;
    return ExitStatus::success;
  }
  CLI::App tree("Plans VRAM, host RAM and step time of training jobs", "steelyard");
  tree.get_formatter()->column_width(34);
  tree.set_help_flag("-h,--help", "Show this help, or that of a command");
  tree.set_version_flag("--version", "steelyard " STEELYARD_VERSION);
  tree.require_subcommand(0, 1);
  tree.footer(
      "Examples:\n  steelyard plan examples/llama-3.1-8b-fsdp.toml\n"
      "  steelyard plan --help\n\n"
      "Exit status: 0 done, and the job fits; 3 the job does not fit; 2 bad input;\n"
      "1 an error of the program itself.");
  Session session{.terminal = terminal, .tree = nullptr, .catalog_folder = {}, .chosen = {}};
  add_all(tree, session);

  STEELYARD_CHECK(check_command(tree, arguments));
  try {
    tree.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    terminal.out << tree.help();
    return ExitStatus::success;
  } catch (const CLI::CallForVersion& version) {
    terminal.out << version.what() << "\n";
    return ExitStatus::success;
  } catch (const CLI::ParseError& refusal) {
    return fail(usage_error(tree, refusal));
  }
  STEELYARD_CHECK(check_choices(tree));
  return session.chosen();
}

}  // namespace

ExitStatus run(const std::vector<std::string>& arguments, const Terminal& terminal) {
  try {
    const Result<ExitStatus> done = interpret(arguments, terminal);
    if (!done) return report_error(terminal, done.error());
    terminal.out.flush();
    if (!terminal.out) {
      return report_error(terminal, {.code = ErrorCode::internal,
                                     .subject = "standard output could not be written",
                                     .hint = "is the disk full?"});
    }
    return *done;
  } catch (const QuantityOverflow&) {
    return report_error(terminal,
                        {.code = ErrorCode::too_large,
                         .subject = "the job asks for an amount beyond 2^63",
                         .hint = "look for a mistyped size, count or length in the job file"});
  } catch (const std::exception& error) {
    return report_error(terminal, {.code = ErrorCode::internal,
                                   .subject = fmt::format("internal error: {}", error.what()),
                                   .hint = "please report this with the job file"});
  }
}

}  // namespace steelyard::cli
