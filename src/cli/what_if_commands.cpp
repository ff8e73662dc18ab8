// `steelyard compare` and `steelyard limits`: many plans of one job.
#include <memory>
#include <ostream>

#include "cli/command.h"
#include "cli/job_options.h"
#include "cli/planning.h"
#include "codec/codec.h"
#include "plan/figures.h"
#include "report/report.h"
#include "search/search.h"

namespace steelyard::cli {
namespace {

struct WhatIfOptions {
  JobWords words;
  std::vector<std::string> machines;
  bool json = false;
  bool ascii = false;
};

// A job as it is read, what it is planned from, and its plan.
struct Base {
  ReadJob read;
  catalog::Catalog catalog;
  plan::Request request;
  facts::Plan planned;
};

Result<Base> base_of(const Session& session, const JobWords& words) {
  STEELYARD_TRY(read, read_job(words));
  STEELYARD_TRY(catalog, open_catalog(session));
  Result<plan::Request> request = request_of(read, catalog);
  if (!request) return fail(placed(request.error(), read));
  request->advice = false;
  Result<facts::Plan> planned = plan::plan(*request);
  if (!planned) return fail(placed(planned.error(), read));
  return Base{std::move(read), std::move(catalog), std::move(*request), std::move(*planned)};
}

search::Planner planner_of(const Base& base) {
  return [&base](const facts::Job& job, bool only_if_fits) -> Result<facts::Plan> {
    STEELYARD_TRY(request, request_of({job, base.read.folder}, base.catalog));
    request.advice = false;
    return plan::figures(request, {.only_if_fits = only_if_fits});
  };
}

// A machine of the catalogue or of a file; or a bare GPU of that id.
Result<facts::Machine> machine_named(const Base& base, const std::string& name) {
  facts::Job job;
  job.machine.name = name;
  Result<facts::Machine> machine = base.catalog.machine_of(job, base.read.folder);
  if (machine || !base.catalog.gpu(name)) return machine;
  job.machine = {};
  job.machine.gpu = name;
  return base.catalog.machine_of(job, base.read.folder);
}

Result<ExitStatus> run_compare(const Session& session, const WhatIfOptions& options) {
  STEELYARD_TRY(base, base_of(session, options.words));
  std::vector<std::pair<std::string, facts::Machine>> machines;
  for (const std::string& name : options.machines) {
    STEELYARD_TRY(machine, machine_named(base, name));
    machines.emplace_back(name, std::move(machine));
  }
  const facts::MachinesCompared comparison =
      search::compare(base.read.job, base.planned, machines, planner_of(base));
  if (options.json) {
    session.terminal.out << codec::to_json(codec::to_value(comparison)) << "\n";
  } else {
    session.terminal.out << report::comparison_text(
        comparison, {.columns = session.terminal.columns, .ascii = options.ascii});
  }
  return ExitStatus::success;
}

Result<ExitStatus> run_limits(const Session& session, const WhatIfOptions& options) {
  STEELYARD_TRY(base, base_of(session, options.words));
  const search::LimitsQuestion question{.job = &base.read.job,
                                        .planned = &base.planned,
                                        .layers = search::layers_of(base.request.model.config)};
  const facts::Limits limits = search::limits(question, planner_of(base));
  if (options.json) {
    session.terminal.out << codec::to_json(codec::to_value(limits)) << "\n";
  } else {
    session.terminal.out << report::limits_text(
        limits, {.columns = session.terminal.columns, .ascii = options.ascii});
  }
  return ExitStatus::success;
}

void add_output_options(CLI::App& command, WhatIfOptions& options, const char* schema) {
  command.add_flag("--json", options.json,
                   std::string("As JSON (steelyard schema ") + schema + ")");
  command.add_flag("--ascii", options.ascii, "Plain ASCII instead of lines");
}

}  // namespace

void add_compare(CLI::App& tree, Session& session) {
  CLI::App& command = add_command(
      tree, "compare", "One job on several machines, side by side",
      {"steelyard compare examples/llama-3.1-8b-fsdp.toml --machines dgx-h100 dgx-a100-640gb",
       "steelyard compare job.toml --machines my-server.json h200-sxm-141gb --json"});
  const auto options = std::make_shared<WhatIfOptions>();
  add_job_options(command, options->words);
  command
      .add_option("--machines", options->machines,
                  "Machines of the catalogue, machine files, or GPUs")
      ->type_name("MACHINE")
      ->required();
  add_output_options(command, *options, "comparison");
  add_catalog_option(command, session);
  command.callback([&session, options] {
    session.chosen = [&session, options] { return run_compare(session, *options); };
  });
}

void add_limits(CLI::App& tree, Session& session) {
  CLI::App& command =
      add_command(tree, "limits", "How far each size of a job can go before it stops to fit",
                  {"steelyard limits examples/gpt2-single-gpu.toml",
                   "steelyard limits job.toml --set train.recompute=full",
                   "steelyard limits --model llama-3.1-8b --gpu h100-sxm-80gb --gpus 8 --json"});
  const auto options = std::make_shared<WhatIfOptions>();
  add_job_options(command, options->words);
  add_output_options(command, *options, "limits");
  add_catalog_option(command, session);
  command.callback([&session, options] {
    session.chosen = [&session, options] { return run_limits(session, *options); };
  });
}

}  // namespace steelyard::cli
