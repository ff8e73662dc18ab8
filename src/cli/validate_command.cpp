#include <algorithm>
#include <memory>
#include <ostream>

#include "base/suggest.h"
#include "cli/case_files.h"
#include "cli/command.h"
#include "cli/planning.h"
#include "codec/codec.h"
#include "codec/evidence.h"
#include "plan/plan.h"
#include "report/report.h"
#include "validate/outside.h"
#include "validate/validate.h"

namespace steelyard::cli {
namespace {

namespace fs = std::filesystem;

struct ValidateOptions {
  std::vector<std::string> paths;
  std::string only, source, confidence;
  std::string markdown, notes, evidence, append;
  bool json = false;
};

// Paths inside of a case's job are relative to the case file.
std::map<std::string, fs::path, std::less<>> folders_of(const std::vector<facts::CaseFile>& files) {
  std::map<std::string, fs::path, std::less<>> folders;
  for (const facts::CaseFile& file : files) {
    folders[file.source] = fs::path(file.path).parent_path();
  }
  return folders;
}

// A misspelt --source would compare nothing and look like success.
Result<void> source_is_there(const std::vector<facts::CaseFile>& files, const std::string& source) {
  std::vector<std::string> sources;
  for (const facts::CaseFile& file : files) sources.push_back(file.source);
  if (source.empty() || std::find(sources.begin(), sources.end(), source) != sources.end()) {
    return {};
  }
  const auto nearest = nearest_name(source, sources);
  return fail({.code = ErrorCode::unknown_name,
               .subject = "--source",
               .found = source,
               .accepted = listed(sources, sources.size()),
               .hint = nearest ? "did you mean " + *nearest + "?" : ""});
}

// What the confidence of plans is read from: every error with what its case is like.
std::string evidence_of(const facts::Validation& validation,
                        const std::map<std::string, facts::Likeness, std::less<>>& likeness) {
  std::vector<facts::Evidence> rows;
  for (const facts::Comparison& one : validation.cases) {
    if (!one.impossible.empty()) continue;
    rows.push_back({one.id, one.group, likeness.at(one.id), one.error});
  }
  return codec::evidence_text(
      rows, "steelyard validate validation/cases --evidence catalog/confidence/measured.tsv");
}

// The table, and behind it another document with its headings one level down.
Result<std::string> markdown_of(const facts::Validation& validation, const std::string& append) {
  std::string text = report::validation_markdown(validation);
  if (append.empty()) return text;
  STEELYARD_TRY(more, codec::read_text(append));
  bool starts = true;
  text += "\n";
  for (const char c : more) {
    if (starts && c == '#') text += '#';
    text += c;
    starts = c == '\n';
  }
  return text;
}

Result<ExitStatus> run_validate(const Session& session, const ValidateOptions& options) {
  STEELYARD_TRY(paths, case_files(options.paths));
  STEELYARD_TRY(catalog, open_catalog(session));
  std::vector<facts::CaseFile> files;
  for (const fs::path& path : paths) {
    STEELYARD_TRY(file, codec::read_cases(path));
    files.push_back(std::move(file));
  }
  STEELYARD_CHECK(source_is_there(files, options.source));
  const auto folders = folders_of(files);
  std::map<std::string, facts::Likeness, std::less<>> likeness;
  const validate::Planner planner = [&](const facts::Case& measured) -> Result<facts::Plan> {
    STEELYARD_TRY(job, codec::job_from(measured.job, measured.id));
    const auto folder = folders.find(measured.source);
    STEELYARD_TRY(
        request, request_of({std::move(job), folder == folders.end() ? fs::path() : folder->second},
                            catalog));
    request.advice = false;
    request.vram = options.only != "pace";
    STEELYARD_TRY(plan, plan::plan(request));
    likeness[measured.id] = plan::likeness_of(plan);
    return plan;
  };
  const validate::Selection selection{.only = facts::from_name<facts::QuantityGroup>(options.only),
                                      .source = options.source,
                                      .confidence = options.confidence};
  facts::Validation validation = validate::compare(files, selection, planner);
  std::vector<facts::CaseNote> notes;
  if (!options.notes.empty()) {
    STEELYARD_TRY(read, codec::read_case_notes(options.notes));
    notes = std::move(read);
  }
  validation.outside = validate::outside(validation, notes);
  if (!options.evidence.empty()) {
    STEELYARD_CHECK(write_file(options.evidence, evidence_of(validation, likeness)));
  }
  if (!options.markdown.empty()) {
    STEELYARD_TRY(text, markdown_of(validation, options.append));
    STEELYARD_CHECK(write_file(options.markdown, text));
  }
  if (options.json) {
    session.terminal.out << codec::to_json(codec::to_value(validation)) << "\n";
  } else {
    session.terminal.out << report::validation_text(
        validation,
        {.columns = session.terminal.columns, .colour = session.terminal.colour, .ascii = false});
  }
  return ExitStatus::success;
}

}  // namespace

void add_validate(CLI::App& tree, Session& session) {
  CLI::App& command =
      add_command(tree, "validate", "Compare predictions with measured cases",
                  {"steelyard validate validation/cases",
                   "steelyard validate validation/cases --only vram --confidence high",
                   "steelyard validate validation/cases --source torchtitan --json",
                   "steelyard validate validation/cases --notes validation/notes.toml --append "
                   "docs/published-layouts.md --markdown docs/validation.md"});
  const auto options = std::make_shared<ValidateOptions>();
  command.add_option("path", options->paths, "Case files, or folders of them")
      ->type_name("FILE_OR_FOLDER")
      ->required();
  command.add_option("--only", options->only, "One group of quantities")
      ->type_name("vram|ram|pace|feed");
  command.add_option("--source", options->source, "One source: the stem of its file")
      ->type_name("NAME");
  command.add_option("--confidence", options->confidence, "Cases of one confidence")
      ->type_name("high|medium|low");
  command.add_option("--notes", options->notes, "What is known of predictions that are far off")
      ->type_name("FILE");
  CLI::Option* markdown =
      command.add_option("--markdown", options->markdown, "Also write the table to this file")
          ->type_name("FILE");
  command.add_option("--append", options->append, "A Markdown file that goes behind the table")
      ->type_name("FILE")
      ->needs(markdown);
  command
      .add_option("--evidence", options->evidence,
                  "Also write the errors that the confidence of plans is read from")
      ->type_name("FILE");
  command.add_flag("--json", options->json, "As JSON (schema steelyard.validation/1)");
  add_catalog_option(command, session);
  command.callback([&session, options] {
    session.chosen = [&session, options] { return run_validate(session, *options); };
  });
}

}  // namespace steelyard::cli
