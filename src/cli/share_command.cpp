// `steelyard share`: several jobs on one server.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <ostream>

#include "catalog/mig.h"
#include "cli/command.h"
#include "cli/share_jobs.h"
#include "codec/codec.h"
#include "codec/share.h"
#include "report/share_report.h"
#include "share/share.h"

namespace steelyard::cli {
namespace {

struct ShareOptions {
  std::string machine;
  std::vector<std::string> jobs;
  bool mig = false, time_slice = false, json = false, ascii = false;
};

// A machine of the catalogue, of a file, or one of 8 GPUs of a kind.
Result<facts::Machine> shared_machine(const catalog::Catalog& catalog, const std::string& name) {
  facts::Job job;
  job.machine.name = name;
  return catalog.machine_of(job, {});
}

Result<share::SharingJob> sharing_job(const std::string& text, const catalog::Catalog& catalog,
                                      share::ShareQuestion& question) {
  STEELYARD_TRY(counted, counted_job(text));
  JobWords words;
  words.file = counted.file;
  STEELYARD_TRY(read, read_job(words));
  STEELYARD_TRY(planner, planner_for(read, catalog));
  STEELYARD_TRY(constants, catalog.constants(read.job.framework, read.job.versions));
  question.assumed_storage = constants.host.storage_read;
  return share::SharingJob{.job = std::move(read.job),
                           .file = counted.file,
                           .copies = counted.copies,
                           .gpus = counted.gpus,
                           .planner = std::move(planner)};
}

// The same file twice, on as many GPUs, is two copies of one job.
void add_job(std::vector<share::SharingJob>& jobs, share::SharingJob job) {
  for (share::SharingJob& other : jobs) {
    if (other.file != job.file || other.gpus != job.gpus) continue;
    other.copies += job.copies;
    return;
  }
  jobs.push_back(std::move(job));
}

Result<void> check_count(const std::vector<share::SharingJob>& jobs) {
  constexpr std::int64_t kMostJobs = 64;
  std::int64_t all = 0;
  for (const share::SharingJob& job : jobs) all += job.copies;
  if (all <= kMostJobs) return {};
  return fail({.code = ErrorCode::too_large,
               .subject = "share",
               .found = std::to_string(all) + " jobs",
               .accepted = "at most " + std::to_string(kMostJobs) + " jobs on one server"});
}

Result<ExitStatus> run_share(const Session& session, const ShareOptions& options) {
  STEELYARD_TRY(catalog, open_catalog(session));
  share::ShareQuestion question;
  STEELYARD_TRY(machine, shared_machine(catalog, options.machine));
  question.machine = std::move(machine);
  question.time_slice = options.time_slice;
  if (options.mig) {
    STEELYARD_TRY(table, catalog::mig_table(catalog, question.machine.gpu));
    question.mig = std::move(table);
  }
  for (const std::string& text : options.jobs) {
    STEELYARD_TRY(job, sharing_job(text, catalog, question));
    add_job(question.jobs, std::move(job));
  }
  STEELYARD_CHECK(check_count(question.jobs));
  const facts::SharePlan plan = share::share(question);
  if (options.json) {
    session.terminal.out << codec::to_json(codec::to_value(plan)) << "\n";
  } else {
    session.terminal.out << report::share_text(
        plan, {.columns = session.terminal.columns, .ascii = options.ascii});
  }
  return plan.verdict == facts::ShareVerdict::fits ? ExitStatus::success : ExitStatus::does_not_fit;
}

}  // namespace

void add_share(CLI::App& tree, Session& session) {
  CLI::App& command = add_command(
      tree, "share", "Several jobs on one server: who goes where, and what each loses",
      {"steelyard share dgx-h100 examples/llama-3.1-8b-fsdp.toml:4 2xexamples/gpt2-single-gpu.toml",
       "steelyard share my-server.json 10xnotebook.toml --time-slice",
       "steelyard share dgx-a100-80gb 12xsmall.toml --mig", "",
       "A job is [COPIESx]FILE[:GPUS]; without GPUS it has what the file says, or the whole "
       "machine.",
       "What a job says about its own machine does not count here. Exit status: 0 they fit "
       "together,",
       "3 they do not, or only if never two of them start or save at the same moment."});
  const auto options = std::make_shared<ShareOptions>();
  command.add_option("machine", options->machine, "A machine of the catalogue or a machine file")
      ->type_name("MACHINE")
      ->required();
  command.add_option("jobs", options->jobs, "Job files, with copies and GPUs")
      ->type_name("FILE")
      ->required();
  command.add_flag("--mig", options->mig,
                   "Jobs of one GPU may have a MIG instance (catalog/mig.toml)");
  command.add_flag("--time-slice", options->time_slice, "Jobs may take turns on a GPU");
  command.add_flag("--json", options->json, "As JSON (steelyard schema share)");
  command.add_flag("--ascii", options->ascii, "Plain ASCII instead of lines");
  add_catalog_option(command, session);
  command.callback([&session, options] {
    session.chosen = [&session, options] { return run_share(session, *options); };
  });
}

}  // namespace steelyard::cli
