#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <memory>
#include <ostream>

#include "catalog/constants.h"
#include "cli/case_files.h"
#include "cli/command.h"
#include "cli/planning.h"
#include "codec/codec.h"
#include "pace/fit.h"
#include "plan/plan.h"
#include "validate/validate.h"

namespace steelyard::cli {
namespace {

struct CalibrateOptions {
  std::vector<std::string> paths;
  std::string output;
  std::int64_t folds = 5;
};

struct MeasuredStep {
  std::string id, source, architecture;
  double weight = 1.0;
  std::shared_ptr<plan::PaceQuestion> question;
  Seconds measured;
};

struct Errors {
  std::size_t cases = 0;
  double median = 0.0, p90 = 0.0, bias = 0.0;
};

double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0.0;
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1) + 0.5)];
}

// Of log(predicted / measured).
Errors errors_of(const std::vector<double>& logs) {
  std::vector<double> sizes;
  for (const double log : logs) sizes.push_back(std::abs(std::expm1(log)));
  return {logs.size(), quantile(sizes, 0.5), quantile(sizes, 0.9), std::expm1(quantile(logs, 0.5))};
}

std::string line_of(const std::string& name, const Errors& errors) {
  return fmt::format("{:<28} {:>5}   median {:>5.1f} %   p90 {:>6.1f} %   bias {:>+6.1f} %", name,
                     errors.cases, 100.0 * errors.median, 100.0 * errors.p90, 100.0 * errors.bias);
}

// A case whose source leaves open what was run or what was read says less.
double weight_of(const std::string& confidence) {
  if (confidence == "low") return 0.3;
  return confidence == "medium" ? 0.7 : 1.0;
}

class Collector {
 public:
  Collector(const std::vector<facts::CaseFile>& files, const catalog::Catalog& catalog)
      : files_(files), catalog_(catalog) {
    for (const facts::CaseFile& file : files) {
      folders_[file.source] = std::filesystem::path(file.path).parent_path();
    }
  }

  std::vector<MeasuredStep> collect() {
    const validate::Planner planner = [this](const facts::Case& one) { return planned(one); };
    const facts::Validation found = validate::compare(
        files_, {.only = facts::QuantityGroup::pace, .source = {}, .confidence = {}}, planner);
    std::vector<MeasuredStep> steps;
    for (const facts::Comparison& one : found.cases) {
      const auto known = known_.find(one.id);
      if (one.group != facts::QuantityGroup::pace || known == known_.end()) continue;
      const double ratio = one.quantity == "step_seconds" ? one.predicted / one.measured
                                                          : one.measured / one.predicted;
      const facts::Plan& plan = known->second.plan;
      if (!plan.pace.step || !(ratio > 0.0) || !one.impossible.empty()) continue;
      const Seconds alone = *plan.pace.step - plan.pace.breakdown.data_stall;
      steps.push_back({one.id, one.source, plan.machine.gpu.architecture, weight_of(one.confidence),
                       known->second.question, alone / ratio});
    }
    return steps;
  }

 private:
  struct Known {
    facts::Plan plan;
    std::shared_ptr<plan::PaceQuestion> question;
  };

  Result<facts::Plan> planned(const facts::Case& one) {
    STEELYARD_TRY(job, codec::job_from(one.job, one.id));
    STEELYARD_TRY(request, request_of({std::move(job), folders_[one.source]}, catalog_));
    request.advice = false;
    request.vram = false;
    STEELYARD_TRY(plan, plan::plan(request));
    STEELYARD_TRY(question, plan::pace_question(request));
    known_[one.id] = {plan, std::make_shared<plan::PaceQuestion>(std::move(question))};
    return plan;
  }

  const std::vector<facts::CaseFile>& files_;
  const catalog::Catalog& catalog_;
  std::map<std::string, std::filesystem::path, std::less<>> folders_;
  std::map<std::string, Known, std::less<>> known_;
};

std::vector<pace::Observation> observations_of(const std::vector<MeasuredStep>& steps,
                                               const facts::EfficiencyConstants& start) {
  std::vector<pace::Observation> observations;
  for (const MeasuredStep& step : steps) {
    observations.push_back({step.question->ask(start), step.measured, step.source, step.weight});
  }
  return observations;
}

// Each fold is predicted with constants that were fitted without it. Which fold a case is in
// follows from its name, so that a new case moves no other.
Result<std::vector<double>> held_out(const std::vector<MeasuredStep>& steps,
                                     const facts::EfficiencyConstants& start, std::int64_t folds) {
  std::vector<double> logs(steps.size());
  for (std::int64_t fold = 0; fold < folds; ++fold) {
    std::vector<MeasuredStep> inside, outside;
    std::vector<std::size_t> places;
    for (std::size_t i = 0; i < steps.size(); ++i) {
      std::uint64_t hash = 14695981039346656037ULL;  // FNV-1a
      for (const char c : steps[i].id)
        hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
      const bool held =
          static_cast<std::int64_t>((hash >> 20U) % static_cast<std::uint64_t>(folds)) == fold;
      (held ? outside : inside).push_back(steps[i]);
      if (held) places.push_back(i);
    }
    STEELYARD_TRY(fitted, pace::fit(observations_of(inside, start), start));
    STEELYARD_TRY(errors, pace::residuals(observations_of(outside, start), fitted.efficiency));
    for (std::size_t i = 0; i < places.size(); ++i) logs[places[i]] = errors[i];
  }
  return logs;
}

using Grouped = std::map<std::string, std::vector<double>>;

std::string report_of(const std::vector<MeasuredStep>& steps, const std::vector<double>& before,
                      const std::vector<double>& fitted, const std::vector<double>& held) {
  std::string text =
      line_of("before", errors_of(before)) + "\n" + line_of("fitted", errors_of(fitted)) + "\n";
  if (!held.empty()) text += line_of("not fitted on", errors_of(held)) + "\n";
  Grouped by_source, by_architecture;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    by_source["source " + steps[i].source].push_back(fitted[i]);
    by_architecture["GPU " + steps[i].architecture].push_back(fitted[i]);
  }
  for (const Grouped* groups : {&by_architecture, &by_source}) {
    for (const auto& [name, logs] : *groups) text += line_of(name, errors_of(logs)) + "\n";
  }
  return text;
}

std::string commented(const std::string& text) {
  std::string out;
  for (std::size_t from = 0; from < text.size();) {
    const std::size_t end = std::min(text.find('\n', from), text.size());
    out += "# " + text.substr(from, end - from) + "\n";
    from = end + 1;
  }
  return out;
}

std::string toml_of(const std::vector<pace::FittedConstant>& constants, const std::string& report) {
  std::map<std::string, std::string> tables;
  for (const pace::FittedConstant& one : constants) {
    std::string table;
    for (std::size_t i = 0; i + 1 < one.path.size(); ++i) {
      table += (i == 0 ? "" : ".") + one.path[i];
    }
    tables[table] +=
        fmt::format("{} = {:.4g}  # from {:.4g}\n", one.path.back(), one.value, one.start);
  }
  std::string out =
      "# Made by `steelyard calibrate`; laid over pace.toml, which has the sources of the values "
      "that\n"
      "# the fit started from.\n" +
      commented(report);
  for (const auto& [table, lines] : tables) {
    out += (table.empty() ? "\n" : "\n[" + table + "]\n") + lines;
  }
  return out;
}

Result<ExitStatus> run_calibrate(const Session& session, const CalibrateOptions& options) {
  STEELYARD_TRY(paths, case_files(options.paths));
  STEELYARD_TRY(catalog, open_catalog(session));
  std::vector<facts::CaseFile> files;
  for (const std::filesystem::path& path : paths) {
    STEELYARD_TRY(file, codec::read_cases(path));
    files.push_back(std::move(file));
  }
  STEELYARD_TRY(start, catalog::unfitted_efficiency(catalog.folder()));
  const std::vector<MeasuredStep> steps = Collector(files, catalog).collect();
  if (steps.empty()) {
    return fail({.code = ErrorCode::bad_input,
                 .subject = "steelyard calibrate",
                 .found = "no measured step among the cases",
                 .accepted = "cases with step_seconds, a throughput or a utilization"});
  }
  const std::vector<pace::Observation> all = observations_of(steps, start);
  STEELYARD_TRY(before, pace::residuals(all, start));
  STEELYARD_TRY(fitted, pace::fit(all, start));
  STEELYARD_TRY(after, pace::residuals(all, fitted.efficiency));
  std::vector<double> held;
  if (options.folds > 1) {
    STEELYARD_TRY(logs, held_out(steps, start, options.folds));
    held = std::move(logs);
  }
  const std::string report = fmt::format("{} constants, {} measured steps; held out in {} parts\n",
                                         fitted.constants.size(), steps.size(), options.folds) +
                             report_of(steps, before, after, held);
  session.terminal.out << report;
  constexpr std::size_t kStepsOfAConstant = 15;
  if (steps.size() < kStepsOfAConstant * fitted.constants.size()) {
    session.terminal.err << fmt::format(
        "steelyard: {} steps are too few for {} constants: {} or more are wanted; what few steps "
        "say little of stays near where it began\n",
        steps.size(), fitted.constants.size(), kStepsOfAConstant * fitted.constants.size());
  }
  if (!options.output.empty()) {
    STEELYARD_CHECK(write_file(options.output, toml_of(fitted.constants, report)));
  }
  return ExitStatus::success;
}

}  // namespace

void add_calibrate(CLI::App& tree, Session& session) {
  CLI::App& command =
      add_command(tree, "calibrate", "Fit the constants of the step time to measured cases",
                  {"steelyard calibrate validation/cases",
                   "steelyard calibrate validation/cases -o catalog/calibration/pace_fitted.toml"});
  const auto options = std::make_shared<CalibrateOptions>();
  command.add_option("path", options->paths, "Case files, or folders of them")
      ->type_name("FILE_OR_FOLDER")
      ->required();
  command.add_option("-o,--output", options->output, "Write the fitted constants to this file")
      ->type_name("FILE");
  command
      .add_option("--folds", options->folds,
                  "Parts that are predicted without having been fitted on; 1: none")
      ->type_name("N")
      ->check(CLI::Range(1, 20));
  add_catalog_option(command, session);
  command.callback([&session, options] {
    session.chosen = [&session, options] { return run_calibrate(session, *options); };
  });
}

}  // namespace steelyard::cli
