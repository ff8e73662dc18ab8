#include <future>
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

struct PlanOptions {
  JobWords words;
  bool json = false;
  std::vector<std::string> timeline;  // a file, or nothing
  bool ascii = false;
  bool no_colour = false;
};

Result<ExitStatus> run_plan(const Session& session, const CLI::App& command,
                            const PlanOptions& options) {
  const std::string drawn = options.timeline.empty() ? "" : options.timeline.front();
  STEELYARD_CHECK(check_timeline_file(drawn));
  STEELYARD_TRY(read, read_job(options.words));
  STEELYARD_TRY(catalog, open_catalog(session));
  // A third of all reading; meanwhile the rest is read.
  auto reading = std::async(std::launch::async, [&catalog] { return catalog.evidence(); });
  Result<plan::Request> request = request_of(read, catalog);
  if (!request) return fail(placed(request.error(), read));
  request->timeline = command.count("--timeline") > 0;
  STEELYARD_TRY(evidence, reading.get());
  request->evidence = std::move(evidence);
  Result<facts::Plan> planned = plan::plan(*request);
  if (!planned) return fail(placed(planned.error(), read));
  const facts::Plan& plan = *planned;
  STEELYARD_CHECK(write_timeline(plan, drawn));
  if (options.json) {
    session.terminal.out << codec::to_json(codec::to_value(plan)) << "\n";
  } else {
    session.terminal.out << report::plan_text(
        plan, {.columns = session.terminal.columns,
               .colour = session.terminal.colour && !options.no_colour,
               .ascii = options.ascii});
  }
  return plan.fits() ? ExitStatus::success : ExitStatus::does_not_fit;
}

}  // namespace

void add_plan(CLI::App& tree, Session& session) {
  CLI::App& command =
      add_command(tree, "plan", "Say whether a job fits, how fast it is and what to change",
                  {"steelyard plan examples/llama-3.1-8b-fsdp.toml",
                   "steelyard plan job.toml --set train.micro_batch=4 --set train.recompute=full",
                   "steelyard plan --model config.json --gpu h100-sxm-80gb --gpus 8",
                   "steelyard plan job.toml --json | python3 -m json.tool",
                   "steelyard plan job.toml --timeline step.html", "",
                   "Exit status: 0 the job fits; 3 it does not (the plan is still printed);",
                   "2 bad input; 1 an error of the program itself."});
  const auto options = std::make_shared<PlanOptions>();
  add_job_options(command, options->words);
  command.add_flag("--json", options->json, "The whole plan as JSON (steelyard schema plan)");
  command
      .add_option("--timeline", options->timeline,
                  "Draw live bytes over the step: .html a page, .json or .json.gz a trace for "
                  "Perfetto; without a file, moments in --json")
      ->type_name("FILE")
      ->expected(0, 1)
      ->allow_extra_args(false);  // what follows the file is the job
  command.add_flag("--ascii", options->ascii, "Plain ASCII instead of bars and lines");
  command.add_flag("--no-colour,--no-color", options->no_colour, "No colours (as NO_COLOR does)");
  add_catalog_option(command, session);
  command.callback([&session, &command, options] {
    session.chosen = [&session, &command, options] { return run_plan(session, command, *options); };
  });
}

}  // namespace steelyard::cli
