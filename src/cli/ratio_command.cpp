// `steelyard ratio`: the host memory that each GPU needs beside it, for a mix of jobs.
#include <algorithm>
#include <memory>
#include <ostream>

#include "base/suggest.h"
#include "catalog/tiers.h"
#include "cli/command.h"
#include "cli/share_jobs.h"
#include "codec/codec.h"
#include "codec/share.h"
#include "report/share_report.h"
#include "share/ratio.h"

namespace steelyard::cli {
namespace {

struct RatioOptions {
  std::vector<std::string> jobs;
  std::string tier;
  std::vector<std::string> gpus;
  std::string csv, html;
  bool json = false, ascii = false;
};

Result<share::MixMember> member_of(const std::string& file, double weight,
                                   const catalog::Catalog& catalog) {
  JobWords words;
  words.file = file;
  STEELYARD_TRY(read, read_job(words));
  STEELYARD_TRY(planner, planner_for(read, catalog));
  if (!read.job.machine.gpus && (read.job.machine.name || read.job.machine.gpu)) {
    STEELYARD_TRY(machine, catalog.machine_of(read.job, read.folder));
    read.job.machine.gpus = machine.gpus;  // as `plan` takes it
  }
  return share::MixMember{.job = std::move(read.job), .weight = weight, .planner = planner};
}

Result<std::vector<facts::Gpu>> gpus_of(const catalog::Catalog& catalog,
                                        const std::vector<std::string>& patterns) {
  STEELYARD_TRY(entries, catalog.list(catalog::Kind::gpus));
  std::vector<facts::Gpu> gpus;
  std::vector<bool> used(patterns.size(), false);
  for (const catalog::Entry& entry : entries) {
    bool wanted = patterns.empty();
    for (std::size_t i = 0; i < patterns.size(); ++i) {
      if (!matches_pattern(patterns[i], entry.id)) continue;
      wanted = used[i] = true;
    }
    if (!wanted) continue;
    STEELYARD_TRY(gpu, catalog.gpu(entry.id));
    if (gpu.vendor != "host") gpus.push_back(gpu);
  }
  for (std::size_t i = 0; i < patterns.size(); ++i) {
    if (used[i]) continue;
    return fail({.code = ErrorCode::unknown_name,
                 .subject = "--gpus",
                 .found = patterns[i],
                 .accepted = "a GPU of the catalogue, or a pattern that some match ('h100-*')",
                 .hint = "`steelyard list gpus` shows them all"});
  }
  return gpus;
}

Result<share::RatioQuestion> question_of(const catalog::Catalog& catalog,
                                         const RatioOptions& options) {
  share::RatioQuestion question{.mix = "the jobs given"};
  if (options.tier.empty() == options.jobs.empty()) {
    return fail(
        {.code = ErrorCode::bad_input,
         .subject = "ratio",
         .found = options.jobs.empty() ? "neither jobs nor --tier" : "jobs and --tier",
         .accepted = "one of them: job files, or --tier " + listed(catalog::tier_names(catalog)),
         .hint = "steelyard ratio --tier entry"});
  }
  if (!options.tier.empty()) {
    STEELYARD_TRY(mix, catalog::tier_mix(catalog, options.tier));
    question.mix = "tier " + mix.name;
    question.about = mix.about;
    question.rule = mix.rule;
    for (const facts::TierMix::Member& job : mix.jobs) {
      STEELYARD_TRY(member, member_of(job.file, job.weight, catalog));
      question.jobs.push_back(std::move(member));
    }
  }
  for (const std::string& file : options.jobs) {
    STEELYARD_TRY(counted, counted_job(file));
    STEELYARD_TRY(member, member_of(counted.file, static_cast<double>(counted.copies), catalog));
    if (counted.gpus) {
      member.job.machine.gpus = counted.gpus;
      member.job.machine.nodes = 1;
    }
    question.jobs.push_back(std::move(member));
  }
  STEELYARD_TRY(gpus, gpus_of(catalog, options.gpus));
  question.gpus = std::move(gpus);
  STEELYARD_TRY(entries, catalog.list(catalog::Kind::machines));
  for (const catalog::Entry& entry : entries) {
    STEELYARD_TRY(machine, catalog.machine(entry.id));
    question.machines.push_back(std::move(machine));
  }
  return question;
}

Result<ExitStatus> run_ratio(const Session& session, const RatioOptions& options) {
  STEELYARD_TRY(catalog, open_catalog(session));
  STEELYARD_TRY(question, question_of(catalog, options));
  const facts::MixRatio ratio = share::ratio(question);
  if (!options.csv.empty()) {
    STEELYARD_CHECK(write_file("--csv", options.csv, report::ratio_csv(ratio)));
  }
  if (!options.html.empty()) {
    STEELYARD_CHECK(write_file("--html", options.html, report::ratio_page(ratio)));
  }
  if (options.json) {
    session.terminal.out << codec::to_json(codec::to_value(ratio)) << "\n";
  } else {
    session.terminal.out << report::ratio_text(
        ratio, {.columns = session.terminal.columns, .ascii = options.ascii});
  }
  return ExitStatus::success;
}

}  // namespace

void add_ratio(CLI::App& tree, Session& session) {
  CLI::App& command = add_command(
      tree, "ratio", "The RAM that each GPU needs beside it, for a mix of jobs or a tier",
      {"steelyard ratio --tier entry", "steelyard ratio --tier large --gpus 'h100-*' b200",
       "steelyard ratio 3xexamples/gpt2-single-gpu.toml examples/llama-3.1-8b-fsdp.toml",
       "steelyard ratio job.toml:4 --html ratio.html --csv ratio.csv", "",
       "A job is [WEIGHTx]FILE[:GPUS]. Each is planned on every kind of GPU, on as many as it asks "
       "for",
       "(8 where it does not say), with a host whose memory has no limit."});
  const auto options = std::make_shared<RatioOptions>();
  command.add_option("jobs", options->jobs, "Job files that are the mix, each with its weight")
      ->type_name("FILE");
  command
      .add_option("--tier", options->tier,
                  "The mix of a tier instead: entry, mid, large, data-heavy")
      ->type_name("TIER");
  command.add_option("--gpus", options->gpus, "Kinds of GPU: catalogue ids, 'h100-*' for several")
      ->type_name("GPU");
  command.add_option("--csv", options->csv, "Also write every job on every kind of GPU")
      ->type_name("FILE")
      ->expected(1);
  command.add_option("--html", options->html, "Also write a page with a chart")
      ->type_name("FILE")
      ->expected(1);
  command.add_flag("--json", options->json, "As JSON (steelyard schema ratio)");
  command.add_flag("--ascii", options->ascii, "Plain ASCII instead of lines");
  add_catalog_option(command, session);
  command.callback([&session, options] {
    session.chosen = [&session, options] { return run_ratio(session, *options); };
  });
}

}  // namespace steelyard::cli
