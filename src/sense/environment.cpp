#include "sense/environment.h"

#include <array>
#include <cstdlib>

namespace steelyard::sense {

Environment environment_of(const Tree& tree) {
  constexpr std::array kNames = {
      "SLURM_JOB_ID",      "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU",
      "SLURM_MEM_PER_GPU", "SLURM_CPUS_ON_NODE", "SLURM_GPUS_ON_NODE",
      "APPTAINER_NAME",    "SINGULARITY_NAME",   "KUBERNETES_SERVICE_HOST"};
  Environment found;
  if (tree.live()) {
    for (const char* name : kNames) {
      if (const char* value = std::getenv(name)) found.emplace(name, value);
    }
    return found;
  }
  const std::string text = tree.text("/environment").value_or("");
  for (const std::string_view line : lines_of(text)) {
    const auto parts = split_at(line, '=');
    if (!parts) continue;
    for (const char* name : kNames) {
      if (parts->first == name) found.emplace(name, std::string(parts->second));
    }
  }
  return found;
}

}  // namespace steelyard::sense
