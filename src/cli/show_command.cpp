#include <fmt/format.h>

#include <memory>
#include <ostream>

#include "base/format.h"
#include "base/text_table.h"
#include "cli/command.h"
#include "codec/codec.h"
#include "model/model.h"
#include "report/report.h"

namespace steelyard::cli {
namespace {

struct ShowOptions {
  std::string kind;
  std::string name;
  bool json = false;
};

Result<std::string> gpu_shown(const catalog::Catalog& catalog, const ShowOptions& options,
                              const report::Style& style) {
  STEELYARD_TRY(gpu, catalog.gpu(options.name));
  if (!options.json) return report::gpu_text(gpu, style);
  facts::Machine around;  // a GPU's JSON is the "gpu" member of a machine file
  around.gpu = std::move(gpu);
  const facts::Value machine = codec::to_value(around);
  const facts::Value* member = machine.find("gpu");
  return codec::to_json(member == nullptr ? machine : *member) + "\n";
}

Result<std::string> machine_shown(const catalog::Catalog& catalog, const ShowOptions& options,
                                  const report::Style& style) {
  STEELYARD_TRY(machine, catalog.machine(options.name));
  if (!options.json) return report::machine_text(machine, style);
  return codec::to_json(codec::to_value(machine)) + "\n";
}

// What the model's graph says of it, or why there is none yet.
void add_graph_rows(TextTable& table, const facts::ModelSource& source) {
  const auto graph = model::build(source, {});
  if (!graph) {
    table.add({"graph", "none: " + printable(to_text(graph.error()))});
    return;
  }
  const Parameters parameters = model::parameter_count(*graph);
  table.add({"type", graph->model_type});
  table.add(
      {"parameters", fmt::format("{} ({})", grouped(parameters.value()), to_text(parameters))});
  table.add({"layers", grouped(graph->layers)});
  table.add({"hidden size", grouped(graph->hidden)});
  table.add({"vocabulary", grouped(graph->vocabulary)});
  if (graph->max_sequence > 0) table.add({"longest sequence", grouped(graph->max_sequence)});
}

Result<std::string> model_shown(const catalog::Catalog& catalog, const ShowOptions& options) {
  STEELYARD_TRY(source, catalog.model(options.name));
  if (options.json) return codec::to_json(source.config) + "\n";
  TextTable table({{""}, {""}});
  add_graph_rows(table, source);
  table.add({"source", printable(source.source)});
  return fmt::format("{}\n\n{}\nconfig.json\n{}\n", printable(source.name), table.text(2),
                     codec::to_json(source.config));
}

Result<ExitStatus> run_show(const Session& session, const ShowOptions& options) {
  const report::Style style{.columns = session.terminal.columns, .colour = session.terminal.colour};
  STEELYARD_TRY(catalog, open_catalog(session));
  STEELYARD_TRY(text, options.kind == "gpu"       ? gpu_shown(catalog, options, style)
                      : options.kind == "machine" ? machine_shown(catalog, options, style)
                                                  : model_shown(catalog, options));
  session.terminal.out << text;
  return ExitStatus::success;
}

}  // namespace

void add_show(CLI::App& tree, Session& session) {
  CLI::App& command =
      add_command(tree, "show", "Show one entry of the catalogue with its sources",
                  {"steelyard show gpu h100-sxm-80gb", "steelyard show machine dgx-h100 --json",
                   "steelyard show model llama-3.1-8b"});
  const auto options = std::make_shared<ShowOptions>();
  command.add_option("kind", options->kind, "What it is")
      ->type_name("gpu|machine|model")
      ->required();
  command.add_option("name", options->name, "Its catalogue id")->type_name("NAME")->required();
  command.add_flag("--json", options->json, "As JSON; of a model, its config.json");
  add_catalog_option(command, session);
  command.callback([&session, options] {
    session.chosen = [&session, options] { return run_show(session, *options); };
  });
}

}  // namespace steelyard::cli
