#include <memory>
#include <ostream>

#include "cli/command.h"
#include "cli/job_options.h"
#include "cli/planning.h"
#include "codec/codec.h"
#include "plan/resolve.h"

namespace steelyard::cli {
namespace {

struct ExplainOptions {
  JobWords words;
  bool json = false;
};

Result<ExitStatus> run_explain(const Session& session, const ExplainOptions& options) {
  STEELYARD_TRY(read, read_job(options.words));
  STEELYARD_TRY(catalog, open_catalog(session));
  Result<plan::Request> request = request_of(read, catalog);
  if (!request) return fail(placed(request.error(), read));
  Result<facts::Job> resolved =
      plan::resolve(request->job, request->model, request->machine, request->constants.framework);
  if (!resolved) return fail(placed(resolved.error(), read));
  const facts::Job& job = *resolved;
  session.terminal.out << (options.json ? codec::to_json(codec::to_value(job)) + "\n"
                                        : codec::explained(job));
  return ExitStatus::success;
}

}  // namespace

void add_explain(CLI::App& tree, Session& session) {
  CLI::App& command =
      add_command(tree, "explain", "Print the job with every default and where each value is from",
                  {"steelyard explain examples/llama-3.1-8b-fsdp.toml",
                   "steelyard explain --model gpt2 --gpu rtx-4090 > job.toml"});
  const auto options = std::make_shared<ExplainOptions>();
  add_job_options(command, options->words);
  command.add_flag("--json", options->json, "As JSON: each key with its value and origin");
  add_catalog_option(command, session);
  command.callback([&session, options] {
    session.chosen = [&session, options] { return run_explain(session, *options); };
  });
}

}  // namespace steelyard::cli
