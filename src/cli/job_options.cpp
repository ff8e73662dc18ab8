#include "cli/job_options.h"

namespace steelyard::cli {

void add_job_options(CLI::App& command, JobWords& words, bool with_nodes) {
  command.add_option("job", words.file, "Job file, TOML or JSON")->type_name("FILE");
  command.add_option("--set", words.settings, "Set a key of the job file; one --set for each")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command.add_option("--model", words.model, "Catalogue id or config.json (model.config)")
      ->type_name("MODEL");
  command.add_option("--machine", words.machine, "Catalogue id or file (machine.name)")
      ->type_name("MACHINE");
  command.add_option("--gpu", words.gpu, "A bare GPU instead of a machine (machine.gpu)")
      ->type_name("GPU");
  command.add_option("--gpus", words.gpus, "GPUs used per node (machine.gpus)")->type_name("N");
  if (!with_nodes) return;
  command.add_option("--nodes", words.nodes, "Nodes (machine.nodes)")->type_name("N");
}

}  // namespace steelyard::cli
