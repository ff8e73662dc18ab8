// The first header of the room: looks up GPUs, machines, models, datasets, framework profiles and
// calibration in the data files of catalog/. Nothing is invented: what a file does not say is
// unknown.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "facts/constants.h"
#include "facts/enums.h"
#include "facts/evidence.h"
#include "facts/job.h"
#include "facts/machine.h"
#include "facts/model_source.h"

namespace steelyard::catalog {

struct Entry {  // one line of `steelyard list`
  std::string id;
  std::string summary;
  std::string confidence;
};

class Files;  // the parsed files, files.h

enum class Kind { gpus, machines, models, datasets };

class Catalog {
 public:
  // The folder named by STEELYARD_CATALOG, else share/steelyard/catalog beside the program, else
  // the folder given at build time. Files are read when asked for, each once, so that a plan reads
  // only its own. Copies share what was read.
  [[nodiscard]] static Result<Catalog> open(const std::filesystem::path& program = {});
  [[nodiscard]] static Catalog at(std::filesystem::path folder);

  [[nodiscard]] Result<facts::Gpu> gpu(std::string_view id) const;
  [[nodiscard]] Result<facts::Machine> machine(std::string_view id) const;
  [[nodiscard]] Result<facts::ModelSource> model(std::string_view id) const;
  [[nodiscard]] Result<facts::Value> dataset(std::string_view id) const;
  [[nodiscard]] Result<facts::Constants> constants(std::string_view framework,
                                                   const facts::Value& versions = {}) const;

  // What data.loader names: loaders/NAME.toml. Errors: unknown_name.
  [[nodiscard]] Result<facts::LoaderProfile> loader(const std::string& name) const;

  // Errors on measured cases: confidence/measured.tsv. None where the folder has no such file.
  [[nodiscard]] Result<std::shared_ptr<const std::vector<facts::Evidence>>> evidence() const;

  // Another tool's arguments as src/exchange reads them: import/TOOL.toml.
  [[nodiscard]] Result<facts::Value> import_table(std::string_view tool) const;

  // Sorted by id; `match`: case-insensitive part of id or summary.
  [[nodiscard]] Result<std::vector<Entry>> list(Kind kind, std::string_view match = {}) const;

  // The machine a job names: a catalogue id, a machine file (path relative to `folder`), or a bare
  // GPU; then the job's overrides (ram_gib, vram_gib, network_gbps_per_gpu, cores ...). `folder` is
  // where the job file lies.
  [[nodiscard]] Result<facts::Machine> machine_of(const facts::Job& job,
                                                  const std::filesystem::path& folder) const;
  // What the job could run on instead, with the keys of its machine that still hold: machines of
  // the catalogue with as many GPUs per node for a job that names one, cards for a job that names a
  // card. Empty where the job describes a machine of its own.
  [[nodiscard]] Result<std::vector<facts::Machine>> alternatives(const facts::Job& job) const;
  // The model a job names: a catalogue id, a config.json (or a folder that holds one), or the
  // object itself; then `[model] set` applied.
  [[nodiscard]] Result<facts::ModelSource> model_of(const facts::Job& job,
                                                    const std::filesystem::path& folder) const;
  // Those of `[model] companions`, in their order.
  [[nodiscard]] Result<std::vector<facts::ModelSource>> companions_of(
      const facts::Job& job, const std::filesystem::path& folder) const;
  // Those of `[model] roles`, in their order; without a configuration of its own as `policy` is.
  [[nodiscard]] Result<std::vector<facts::ModelSource>> roles_of(
      const facts::Job& job, const facts::ModelSource& policy,
      const std::filesystem::path& folder) const;

  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }

 private:
  [[nodiscard]] Result<std::vector<std::string>> ids_of_kind(Kind kind) const;
  [[nodiscard]] Result<facts::ModelSource> named_model(const std::string& name,
                                                       const std::filesystem::path& folder) const;
  explicit Catalog(std::filesystem::path folder);
  std::filesystem::path folder_;
  std::shared_ptr<Files> files_;
};

}  // namespace steelyard::catalog
