#include <memory>
#include <ostream>

#include "cli/command.h"
#include "cli/job_options.h"
#include "cli/planning.h"
#include "cli/timeline_file.h"
#include "codec/codec.h"
#include "plan/plan.h"
#include "report/report.h"

namespace steelyard::cli {
namespace {

constexpr const char* kVram = "vram";
constexpr const char* kRam = "ram";
constexpr const char* kFeed = "feed";
constexpr const char* kPace = "pace";

bool is_subject(const std::string& word) {
  return word == kVram || word == kRam || word == kFeed || word == kPace;
}

struct WhyOptions {
  JobWords words;
  std::string what;
  std::optional<std::string> rank;
  std::string timeline;
  std::int64_t top = 20;
  bool json = false;
  bool ascii = false;
  bool no_colour = false;
};

// `why vram --model gpt2` has no job file: the only word is what is asked for.
Result<void> settle(WhyOptions& options) {
  if (options.what.empty() && is_subject(options.words.file)) {
    options.what = std::exchange(options.words.file, "");
  }
  if (is_subject(options.what)) {
    if (!options.timeline.empty() && options.what != kPace) {
      return fail({.code = ErrorCode::bad_input,
                   .subject = "steelyard why: --timeline",
                   .found = "a timeline of " + options.what,
                   .accepted = "of pace",
                   .hint = "steelyard plan JOB --timeline FILE draws the memory of a step"});
    }
    STEELYARD_CHECK(check_trace_file(options.timeline));
    if (options.top >= 0) return {};
    return fail({.code = ErrorCode::bad_input,
                 .subject = "steelyard why: --top",
                 .found = std::to_string(options.top),
                 .accepted = "0 or more"});
  }
  return fail({.code = options.what.empty() ? ErrorCode::missing_value : ErrorCode::unknown_name,
               .subject = "steelyard why: what to look into",
               .found = options.what.empty() ? "" : "\"" + options.what + "\"",
               .accepted = "vram, ram, pace or feed",
               .hint = "steelyard why job.toml vram"});
}

report::Style style_of(const Session& session, const WhyOptions& options) {
  return {.columns = session.terminal.columns,
          .colour = session.terminal.colour && !options.no_colour,
          .ascii = options.ascii};
}

// Host memory and the data path: sections of the plan itself, told at length.
Result<ExitStatus> explain_host(const Session& session, const WhyOptions& options,
                                const ReadJob& read, plan::Request request) {
  request.advice = false;
  Result<facts::Plan> planned = plan::plan(request);
  if (!planned) return fail(placed(planned.error(), read));
  if (options.json) {
    const facts::Value all = codec::to_value(*planned);
    facts::Object object;
    object.emplace_back("schema", facts::Value(std::string("steelyard.why/1")));
    object.emplace_back("job", facts::Value(planned->job.name));
    object.emplace_back(options.what, *all.find(options.what));
    session.terminal.out << codec::to_json(facts::Value(std::move(object))) << "\n";
    return ExitStatus::success;
  }
  const report::Style style = style_of(session, options);
  session.terminal.out << (options.what == kRam ? report::why_ram_text(*planned, style)
                                                : report::why_feed_text(*planned, style));
  return ExitStatus::success;
}

Result<ExitStatus> explain_pace(const Session& session, const WhyOptions& options,
                                const ReadJob& read, const plan::Request& request) {
  Result<facts::PaceWhy> why = plan::pace_why(request);
  if (!why) return fail(placed(why.error(), read));
  STEELYARD_CHECK(write_trace(*why, options.timeline));
  session.terminal.out << (options.json
                               ? codec::to_json(codec::to_value(*why)) + "\n"
                               : report::why_pace_text(*why, style_of(session, options),
                                                       static_cast<std::size_t>(options.top)));
  return ExitStatus::success;
}

Result<ExitStatus> run_why(const Session& session, WhyOptions options) {
  STEELYARD_CHECK(settle(options));
  STEELYARD_TRY(read, read_job(options.words));
  STEELYARD_TRY(catalog, open_catalog(session));
  Result<plan::Request> request = request_of(read, catalog);
  if (!request) return fail(placed(request.error(), read));
  if (options.what == kPace) return explain_pace(session, options, read, *request);
  if (options.what != kVram) return explain_host(session, options, read, std::move(*request));
  Result<facts::VramWhy> why = plan::vram_why(*request, options.rank);
  if (!why) return fail(placed(why.error(), read));
  if (options.json) {
    session.terminal.out << codec::to_json(codec::to_value(*why)) << "\n";
    return ExitStatus::success;
  }
  session.terminal.out << report::why_text(*why, style_of(session, options),
                                           static_cast<std::size_t>(options.top));
  return ExitStatus::success;
}

}  // namespace

void add_why(CLI::App& tree, Session& session) {
  CLI::App& command = add_command(
      tree, "why", "Say what fills the GPU or the host, or what the GPUs wait for",
      {"steelyard why examples/llama-3.1-8b-fsdp.toml vram",
       "steelyard why job.toml vram --rank \"pipeline stage 1 of 4\"", "steelyard why job.toml ram",
       "steelyard why job.toml feed", "steelyard why job.toml pace --timeline step.json.gz",
       "steelyard why vram --model gpt2 --gpu rtx-4090 --json"});
  const auto options = std::make_shared<WhyOptions>();
  add_job_options(command, options->words);
  command.add_option("what", options->what, "What to look into: vram, ram, pace or feed")
      ->type_name("WHAT");
  command.add_option("--rank", options->rank, "Another kind of rank than the fullest (see Ranks)")
      ->type_name("KIND");
  command
      .add_option("--timeline", options->timeline,
                  "Also write the step as a trace for Perfetto (.json, .json.gz); of pace")
      ->type_name("FILE");
  command.add_option("--top", options->top, "How many rows to print; --json has all")
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
