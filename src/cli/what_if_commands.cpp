// `steelyard compare` and `steelyard limits`: many plans of one job.
#include <memory>
#include <ostream>

#include "cli/command.h"
#include "cli/job_options.h"
#include "cli/what_if.h"
#include "codec/codec.h"
#include "report/report.h"

namespace steelyard::cli {
namespace {

struct WhatIfOptions {
  JobWords words;
  std::vector<std::string> machines;
  bool json = false;
  bool ascii = false;
};

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
  // As the job names it: a framework may build the model by code of its own.
  STEELYARD_TRY(model, base.catalog.model_of(base.request.job, base.read.folder));
  const search::LimitsQuestion question{
      .job = &base.read.job, .planned = &base.planned, .layers = search::layers_of(model.config)};
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
      {"steelyard compare examples/llama-3.1-8b-fsdp.toml --machines dgx-h100 dgx-a100-80gb",
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
