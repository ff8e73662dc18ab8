#include <algorithm>

#include "catalog/catalog.h"
#include "catalog/files.h"
#include "catalog/profile_names.h"
#include "catalog/settings.h"

namespace steelyard::catalog {
namespace {

Result<facts::LoaderProfile> loader_from(const facts::Value& table, const std::string& name,
                                         const std::filesystem::path& file) {
  Settings settings(table, file);
  facts::LoaderProfile loader;
  loader.name = name;
  loader.alone = settings.flag("alone");
  loader.jpeg_work = settings.text("jpeg_work");
  loader.png_work = settings.text("png_work");
  loader.jpeg_part_decoded = settings.ratio("jpeg_part_decoded");
  loader.png_part_decoded = settings.ratio("png_part_decoded");
  loader.bytes_per_value = settings.real("bytes_per_value");
  loader.process = settings.bytes("process");
  loader.per_worker = settings.bytes("per_worker");
  loader.per_thread = settings.bytes("per_thread");
  loader.page = settings.bytes("page");
  loader.index_per_sample = settings.bytes("index_per_sample");
  loader.other_threads = settings.whole("other_threads");
  loader.depth = settings.whole("depth");
  loader.slot_deviations = settings.real("slot_deviations");
  loader.read_record = settings.seconds("read_record");
  loader.read_file = settings.seconds("read_file");
  loader.make_record = settings.seconds("make_record");
  loader.source = settings.text("source");
  STEELYARD_CHECK(settings.finish());
  return loader;
}

}  // namespace

Result<facts::LoaderProfile> Catalog::loader(const std::string& name) const {
  const std::string relative = "loaders/" + name + ".toml";
  STEELYARD_CHECK(known_name(folder_, {.kind = "loaders",
                                       .name = name,
                                       .subject = "data.loader",
                                       .hint = "without it, the loader of the framework"}));
  STEELYARD_TRY(table, files_->read(relative));
  return loader_from(*table, name, folder_ / relative);
}

}  // namespace steelyard::catalog
