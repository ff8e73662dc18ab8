#include <memory>
#include <ostream>

#include "cli/command.h"
#include "cli/planning.h"
#include "codec/codec.h"
#include "plan/plan.h"
#include "report/report.h"

namespace steelyard::cli {
namespace {

// What is saved depends on a job; where none is given, on this card.
constexpr const char* kCard = "h100-sxm-80gb";

struct ModelOptions {
  JobWords words{};
  std::string model, other;
  bool tree = false;
  bool json = false;
  bool ascii = false;
  bool no_colour = false;
};

Result<facts::ModelTable> table_of(const catalog::Catalog& catalog, JobWords words,
                                   const std::string& model) {
  words.model = model;
  STEELYARD_TRY(read, read_job(words));
  if (!read.job.machine.name && !read.job.machine.gpu) read.job.machine.gpu = std::string(kCard);
  STEELYARD_TRY(request, request_of(read, catalog));
  return plan::model_table(request);
}

Result<ExitStatus> run_model(const Session& session, const ModelOptions& options) {
  STEELYARD_TRY(catalog, open_catalog(session));
  const report::Style style{.columns = session.terminal.columns,
                            .colour = session.terminal.colour && !options.no_colour,
                            .ascii = options.ascii};
  STEELYARD_TRY(table, table_of(catalog, options.words, options.model));
  std::ostream& out = session.terminal.out;
  if (options.other.empty()) {
    if (options.json) {
      out << codec::to_json(codec::to_value(table)) << "\n";
    } else {
      out << (options.tree ? report::model_tree_text(table, style)
                           : report::model_text(table, style));
    }
    return ExitStatus::success;
  }
  if (options.tree) {
    return fail(
        Error{.code = ErrorCode::impossible_combination,
              .subject = "--tree",
              .found = "two models",
              .accepted = "one",
              .hint = "the comparison of two is a table; --json holds the weights of both"});
  }
  STEELYARD_TRY(other, table_of(catalog, options.words, options.other));
  if (options.json) {
    out << codec::to_json(
               facts::Value(facts::Array{codec::to_value(table), codec::to_value(other)}))
        << "\n";
    return ExitStatus::success;
  }
  out << report::models_compared(
      table, other, style, [](const facts::Value& value) { return codec::to_json(value, -1); });
  return ExitStatus::success;
}

}  // namespace

void add_model(CLI::App& tree, Session& session) {
  CLI::App& command =
      add_command(tree, "model", "Show a model operator by operator, or compare two",
                  {"steelyard model llama-3.1-8b", "steelyard model path/to/config.json --tree",
                   "steelyard model model.safetensors.index.json", "steelyard model export.onnx",
                   "steelyard model resnet-50 --set train.micro_batch=32 --json",
                   "steelyard model llama-3.1-8b qwen3-8b"});
  const auto options = std::make_shared<ModelOptions>();
  command
      .add_option("model", options->model,
                  "Catalogue id, a config.json, a folder that holds one (or a diffusers "
                  "model_index.json), an .onnx file, or .safetensors beside its config.json")
      ->type_name("MODEL")
      ->required();
  command.add_option("other", options->other, "Another model to compare with")->type_name("MODEL");
  command
      .add_option("--set", options->words.settings,
                  "Set any key of a job file (train.sequence_length=4096); may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command.add_option("--gpu", options->words.gpu, "GPU whose kernels are meant (machine.gpu)")
      ->type_name("GPU");
  command.add_flag("--tree", options->tree, "The tree of modules with their parameters");
  command.add_flag("--json", options->json, "As JSON (steelyard schema model); two: a list");
  command.add_flag("--ascii", options->ascii, "Plain ASCII instead of lines");
  command.add_flag("--no-colour,--no-color", options->no_colour, "No colours (as NO_COLOR does)");
  add_catalog_option(command, session);
  command.callback([&session, options] {
    session.chosen = [&session, options] { return run_model(session, *options); };
  });
}

}  // namespace steelyard::cli
