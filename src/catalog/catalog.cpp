#include "catalog/catalog.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <system_error>

#include "base/suggest.h"
#include "catalog/entries.h"
#include "catalog/files.h"
#include "catalog/unknown.h"
#include "codec/codec.h"

namespace steelyard::catalog {
namespace {

namespace fs = std::filesystem;

bool is_catalog(const fs::path& folder) {
  std::error_code trouble;
  return fs::exists(folder / "gpus.json", trouble);
}

// share/steelyard/catalog beside the folder of the program, links resolved.
fs::path beside(const fs::path& program) {
  std::error_code trouble;
  const bool bare = program.parent_path().empty();
  const fs::path real =
      bare ? fs::read_symlink("/proc/self/exe", trouble) : fs::canonical(program, trouble);
  return real.parent_path().parent_path() / "share" / "steelyard" / "catalog";
}

}  // namespace

Catalog::Catalog(std::filesystem::path folder)
    : folder_(std::move(folder)), files_(std::make_shared<Files>(folder_)) {}

Catalog Catalog::at(std::filesystem::path folder) {
  return Catalog(std::move(folder));
}

Result<Catalog> Catalog::open(const std::filesystem::path& program) {
  if (const char* named = std::getenv("STEELYARD_CATALOG"); named != nullptr && *named != '\0') {
    if (is_catalog(named)) return Catalog(named);
    return fail(
        Error{.code = ErrorCode::unreadable,
              .subject = "STEELYARD_CATALOG",
              .found = fmt::format("{}, which holds no gpus.json", named),
              .accepted = "the folder of a catalogue",
              .hint = "unset the variable to use the catalogue that came with the program"});
  }
  const fs::path installed = beside(program);
  if (is_catalog(installed)) return Catalog(installed);
  const fs::path built = STEELYARD_BUILD_CATALOG;
  if (is_catalog(built)) return Catalog(built);
  return fail(Error{.code = ErrorCode::unreadable,
                    .subject = "the catalogue",
                    .found = fmt::format("neither {} nor {}", installed.string(), built.string()),
                    .accepted = "the folder catalog/ of Steelyard",
                    .hint = "set STEELYARD_CATALOG to it"});
}

Result<facts::Gpu> Catalog::gpu(std::string_view id) const {
  const fs::path file = folder_ / "gpus.json";
  STEELYARD_TRY(content, files_->read("gpus.json"));
  STEELYARD_TRY(gpus, list_of(*content, "gpus", file));
  const facts::Value* entry = entry_of(*gpus, id);
  if (entry == nullptr) return fail(unknown("machine.gpu", id, "gpus", ids_of(*gpus)));
  return gpu_from(*entry, file);
}

Result<facts::Machine> Catalog::machine(std::string_view id) const {
  const fs::path file = folder_ / "machines.json";
  STEELYARD_TRY(content, files_->read("machines.json"));
  STEELYARD_TRY(machines, list_of(*content, "machines", file));
  const facts::Value* entry = entry_of(*machines, id);
  if (entry == nullptr) return fail(unknown("machine.name", id, "machines", ids_of(*machines)));

  const facts::Value* gpu = entry->find("gpu");
  const facts::Value* gpu_id = gpu == nullptr ? nullptr : gpu->find("id");
  const fs::path gpu_file = folder_ / "gpus.json";
  STEELYARD_TRY(gpu_content, files_->read("gpus.json"));
  STEELYARD_TRY(gpus, list_of(*gpu_content, "gpus", gpu_file));
  const std::string* wanted = gpu_id == nullptr ? nullptr : gpu_id->as_text();
  const facts::Value* gpu_entry = wanted == nullptr ? nullptr : entry_of(*gpus, *wanted);
  if (gpu_entry == nullptr) {
    return fail(Error{.code = ErrorCode::bad_input,
                      .subject = fmt::format("{}: gpu.id", id),
                      .found = wanted == nullptr ? "nothing" : *wanted,
                      .accepted = "an id of gpus.json",
                      .hint = "the catalogue is damaged; restore this file",
                      .file = file.string()});
  }
  return machine_from(*entry, file, *gpu_entry, gpu_file);
}

Result<std::vector<std::string>> Catalog::ids_of_kind(Kind kind) const {
  const char* const key = kind == Kind::machines ? "machines" : "gpus";
  const std::string name = std::string(key) + ".json";
  STEELYARD_TRY(content, files_->read(name));
  STEELYARD_TRY(list, list_of(*content, key, folder_ / name));
  return ids_of(*list);
}

Result<facts::Value> Catalog::dataset(std::string_view id) const {
  const std::vector<std::string> ids = file_ids(folder_ / "datasets");
  if (std::find(ids.begin(), ids.end(), id) == ids.end()) {
    return fail(unknown("dataset", id, "datasets", ids));
  }
  STEELYARD_TRY(content, files_->read(fmt::format("datasets/{}.json", id)));
  return *content;
}

}  // namespace steelyard::catalog
