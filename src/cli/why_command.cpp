#include <memory>
#include <ostream>

#include "cli/command.h"
#include "cli/job_options.h"
#include "cli/planning.h"
#include "codec/codec.h"
#include "plan/plan.h"
#include "report/report.h"

namespace steelyard::cli {
namespace {

constexpr const char* kVram = "vram";

struct WhyOptions {
  JobWords words;
  std::string what;
  std::optional<std::string> rank;
  std::int64_t top = 20;
  bool json = false;
  bool ascii = false;
  bool no_colour = false;
};

// `why vram --model gpt2` has no job file: the only word is what is asked for.
Result<void> settle(WhyOptions& options) {
  if (options.what.empty() && options.words.file == kVram) {
    options.what = std::exchange(options.words.file, "");
  }
  if (options.what == kVram) {
    if (options.top >= 0) return {};
    return fail({.code = ErrorCode::bad_input,
                 .subject = "steelyard why: --top",
                 .found = std::to_string(options.top),
                 .accepted = "0 or more"});
  }
  return fail({.code = options.what.empty() ? ErrorCode::missing_value : ErrorCode::unknown_name,
               .subject = "steelyard why: what to look into",
               .found = options.what.empty() ? "" : "\"" + options.what + "\"",
               .accepted = kVram,
               .hint = "steelyard why job.toml vram"});
}

Result<ExitStatus> run_why(const Session& session, WhyOptions options) {
  STEELYARD_CHECK(settle(options));
  STEELYARD_TRY(read, read_job(options.words));
  STEELYARD_TRY(catalog, open_catalog(session));
  Result<plan::Request> request = request_of(read, catalog);
  if (!request) return fail(placed(request.error(), read));
  Result<facts::VramWhy> why = plan::vram_why(*request, options.rank);
  if (!why) return fail(placed(why.error(), read));
  if (options.json) {
    session.terminal.out << codec::to_json(codec::to_value(*why)) << "\n";
    return ExitStatus::success;
  }
  session.terminal.out << report::why_text(*why,
                                           {.columns = session.terminal.columns,
                                            .colour = session.terminal.colour && !options.no_colour,
                                            .ascii = options.ascii},
                                           static_cast<std::size_t>(options.top));
  return ExitStatus::success;
}

}  // namespace

void add_why(CLI::App& tree, Session& session) {
  CLI::App& command =
      add_command(tree, "why", "Name the tensors that fill the GPU at its peak, largest first",
                  {"steelyard why examples/llama-3.1-8b-fsdp.toml vram",
                   "steelyard why job.toml vram --rank \"pipeline stage 1 of 4\"",
                   "steelyard why vram --model gpt2 --gpu rtx-4090 --json"});
  const auto options = std::make_shared<WhyOptions>();
  add_job_options(command, options->words);
  command.add_option("what", options->what, "What to look into: vram")->type_name("vram");
  command.add_option("--rank", options->rank, "Another kind of rank than the fullest (see Ranks)")
      ->type_name("KIND");
  command.add_option("--top", options->top, "How many groups of tensors to print; --json has all")
      ->type_name("N");
  command.add_flag("--json", options->json, "As JSON, every group (steelyard schema why)");
  command.add_flag("--ascii", options->ascii, "Plain ASCII instead of bars and lines");
  command.add_flag("--no-colour,--no-color", options->no_colour, "No colours (as NO_COLOR does)");
  add_catalog_option(command, session);
  command.callback([&session, options] {
    session.chosen = [&session, options] { return run_why(session, *options); };
  });
}

}  // namespace steelyard::cli
