#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <system_error>
#include <vector>

#include "base/suggest.h"
#include "catalog/catalog.h"
#include "catalog/files.h"
#include "catalog/merge.h"
#include "catalog/unknown.h"
#include "codec/codec.h"
#include "codec/onnx.h"
#include "codec/safetensors.h"

namespace steelyard::catalog {
namespace {

namespace fs = std::filesystem;

// Deeper tables than any configuration has; a longer dotted key is a mistake.
constexpr std::ptrdiff_t kMostDots = 16;

struct Kind {
  const char* extension;
  const char* name;
};
// Files that hold a model but are not its configuration.
constexpr std::array<Kind, 7> kOtherKinds = {{{".bin.index.json", "an index of weights"},
                                              {".gguf", "a GGUF file"},
                                              {".bin", "a file of weights"},
                                              {".pt", "a file of weights"},
                                              {".pth", "a file of weights"},
                                              {".ckpt", "a file of weights"},
                                              {".nemo", "a NeMo archive"}}};

Result<void> is_configuration(const std::string& name) {
  for (const Kind& kind : kOtherKinds) {
    if (!name.ends_with(kind.extension)) continue;
    return fail(Error{.code = ErrorCode::not_supported,
                      .subject = "model.config",
                      .found = fmt::format("{} ({})", name, kind.name),
                      .accepted = "a config.json, a folder that holds one, an .onnx or "
                                  ".safetensors file, or a catalogue id",
                      .hint = "the config.json that lies beside the weights works"});
  }
  return {};
}

Result<facts::ModelSource> from_file(const std::string& name, const fs::path& path);

// A folder of a diffusers pipeline: model_index.json names its parts, each in a folder of its own;
// the denoiser is what is trained.
Result<facts::ModelSource> from_pipeline(const std::string& name, const fs::path& folder) {
  STEELYARD_TRY(index, codec::read_value(folder / "model_index.json"));
  for (const char* denoiser : {"transformer", "unet"}) {
    std::error_code trouble;
    const bool named = index.find(denoiser) != nullptr && !index.find(denoiser)->is_null();
    if (!named || !fs::exists(folder / denoiser / "config.json", trouble)) continue;
    return from_file(name, folder / denoiser);
  }
  return fail(
      Error{.code = ErrorCode::unreadable,
            .subject = "model.config",
            .found = fmt::format("{}, a pipeline without a denoiser's config.json", name),
            .accepted = "model_index.json beside transformer/config.json or unet/config.json",
            .file = (folder / "model_index.json").string()});
}

bool is_weights(const std::string& name) {
  return name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json");
}

// Headers say how large each weight is, not what is computed: the configuration beside them does.
Result<facts::ModelSource> from_weights(const std::string& name, const fs::path& path) {
  const bool index = name.ends_with(".index.json");
  STEELYARD_TRY(stored,
                index ? codec::read_safetensors_index(path) : codec::read_safetensors(path));
  const fs::path file = path.parent_path() / "config.json";
  std::error_code trouble;
  if (!fs::exists(file, trouble)) {
    return fail(Error{.code = ErrorCode::missing_value,
                      .subject = "model.config",
                      .found = fmt::format("{} with {} tensors, and no config.json beside it", name,
                                           stored->tensors.size()),
                      .accepted = "a file of weights that lies beside its config.json",
                      .hint =
                          "weights alone do not say what is computed with them: put the model's "
                          "config.json there, or name an ONNX export",
                      .file = path.string()});
  }
  STEELYARD_TRY(config, codec::read_value(file));
  if (config.as_object() == nullptr) {
    return fail(Error{.code = ErrorCode::bad_input,
                      .subject = "the model's configuration",
                      .found = config.kind_name(),
                      .accepted = "an object of keys, as in a Hugging Face config.json",
                      .file = file.string()});
  }
  return facts::ModelSource{.name = name, .config = std::move(config), .stored = std::move(stored)};
}

Result<facts::ModelSource> from_onnx(const std::string& name, const fs::path& path) {
  STEELYARD_TRY(onnx, codec::read_onnx(path));
  return facts::ModelSource{
      .name = name, .config = facts::Value(facts::Object()), .onnx = std::move(onnx)};
}

Result<facts::ModelSource> from_file(const std::string& name, const fs::path& path) {
  STEELYARD_CHECK(is_configuration(name));
  std::error_code trouble;
  const bool is_folder = fs::is_directory(path, trouble);
  if (!is_folder && path.filename() == "model_index.json") {
    return from_pipeline(name, path.parent_path());
  }
  if (is_folder && fs::exists(path / "model_index.json", trouble)) {
    return from_pipeline(name, path);
  }
  if (!is_folder && name.ends_with(".onnx")) return from_onnx(name, path);
  if (!is_folder && is_weights(name)) return from_weights(name, path);
  const fs::path file = is_folder ? path / "config.json" : path;
  if (is_folder && !fs::exists(file, trouble)) {
    return fail(Error{.code = ErrorCode::unreadable,
                      .subject = "model.config",
                      .found = fmt::format("{}, a folder without config.json", name),
                      .accepted = "a config.json, a folder that holds one, or a catalogue id",
                      .file = path.string()});
  }
  STEELYARD_TRY(config, codec::read_value(file));
  if (config.as_object() == nullptr) {
    return fail(Error{.code = ErrorCode::bad_input,
                      .subject = "the model's configuration",
                      .found = config.kind_name(),
                      .accepted = "an object of keys, as in a Hugging Face config.json",
                      .file = file.string()});
  }
  return facts::ModelSource{.name = name, .config = std::move(config), .source = ""};
}

// timm's config.json on the Hub names the function that makes the model.
const std::string* timm_architecture(const facts::Value& config) {
  for (const char* key : {"model_type", "_class_name"}) {
    if (config.find(key) != nullptr) return nullptr;
  }
  const facts::Value* name = config.find("architecture");
  return name != nullptr ? name->as_text() : nullptr;
}

// "timm/resnet50.a1_in1k" is "timm/resnet50": behind the dot timm names weights of the network.
// Their head is that of the data they were trained on last: ImageNet-1k's where the tag ends so.
Result<void> has_imagenet_head(const std::string& name) {
  const std::size_t dot = name.find('.');
  if (!name.starts_with("timm/") || dot == std::string::npos) return {};
  const std::string_view tag = std::string_view(name).substr(dot + 1);
  if (tag.ends_with("in1k")) return {};
  return fail(
      Error{.code = ErrorCode::not_supported,
            .subject = "model.config",
            .found = fmt::format("{}, weights of another data set than ImageNet-1k", name),
            .accepted = "a name without a tag, or with one that ends in in1k",
            .hint = fmt::format("config = \"{}\" with set = {{ num_classes = ... }} plans the "
                                "network with a head of that size",
                                name.substr(0, dot))});
}

// "a text" or a list of texts, joined.
std::string sources_of(const facts::Value* source) {
  if (source == nullptr) return "";
  if (source->as_text() != nullptr) return *source->as_text();
  std::string all;
  if (const facts::Array* items = source->as_array()) {
    for (const facts::Value& item : *items) {
      if (item.as_text() == nullptr) continue;
      if (!all.empty()) all += "; ";
      all += *item.as_text();
    }
  }
  return all;
}

Result<void> override_keys(facts::Value& config, const facts::Value& set) {
  if (set.is_null()) return {};
  const facts::Object* members = set.as_object();
  if (members == nullptr) {
    return fail(Error{.code = ErrorCode::bad_input,
                      .subject = "model.set",
                      .found = set.kind_name(),
                      .accepted = "a table of configuration keys, { num_hidden_layers = 16 }"});
  }
  for (const auto& [key, value] : *members) {
    if (std::count(key.begin(), key.end(), '.') > kMostDots) {
      return fail(Error{.code = ErrorCode::too_large,
                        .subject = "model.set",
                        .found = fmt::format("a key of {} characters with dots", key.size()),
                        .accepted = fmt::format("at most {} dots in a key", kMostDots)});
    }
  }
  merge(config, set);
  return {};
}

}  // namespace

Result<facts::ModelSource> Catalog::model(std::string_view id) const {
  // An entry that `extends` another holds what its configuration has beside or instead of that
  // one's: the sizes of one network of a family.
  constexpr std::size_t kMostEntries = 4;
  std::vector<std::shared_ptr<const facts::Value>> entries;
  std::vector<const facts::Value*> configs;
  std::string source;
  std::string entry(id);
  while (!entry.empty() && configs.size() < kMostEntries) {
    const fs::path file = folder_ / "models" / fmt::format("{}.json", entry);
    std::error_code trouble;
    if (!is_plain_id(entry) || !fs::is_regular_file(file, trouble)) {
      return fail(unknown("model.config", entry, "models", file_ids(folder_ / "models")));
    }
    STEELYARD_TRY(content, files_->read(fmt::format("models/{}.json", entry)));
    const facts::Value* config = content->find("config");
    if (config == nullptr || config->as_object() == nullptr) {
      return fail(Error{.code = ErrorCode::bad_input,
                        .subject = "config",
                        .found = config == nullptr ? "nothing" : config->kind_name(),
                        .accepted = "the model's configuration as an object",
                        .hint = "the catalogue is damaged; restore this file",
                        .file = file.string()});
    }
    if (configs.empty()) source = sources_of(content->find("source"));
    configs.push_back(config);
    entries.push_back(content);
    const facts::Value* extends = content->find("extends");
    entry = extends != nullptr && extends->as_text() != nullptr ? *extends->as_text() : "";
  }
  facts::Value config = *configs.back();
  for (std::size_t i = configs.size() - 1; i > 0; --i) merge(config, *configs[i - 1]);
  return facts::ModelSource{
      .name = std::string(id), .config = std::move(config), .source = std::move(source)};
}

Result<facts::Value> Catalog::import_table(std::string_view tool) const {
  STEELYARD_TRY(content, files_->read(fmt::format("import/{}.toml", tool)));
  return *content;
}

namespace {

// Hugging Face's classes have defaults for these too, but a file without them is a truncated one:
// its plan would be of another model. What has no model_type is refused elsewhere, by that name.
Result<void> has_sizes(const facts::ModelSource& source) {
  static const std::vector<std::vector<std::string_view>> kNeeded = {
      {"hidden_size", "n_embd", "d_model", "dim", "hidden_sizes", "embed_dim", "hidden-size"},
      {"num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "depth",
       "depths", "layers", "num-layers", "layers_block_type"},
      {"vocab_size", "vocab-size"}};
  const facts::Value* type = source.config.find("model_type");
  if (type == nullptr || type->as_text() == nullptr) return {};
  // What reads pictures has no vocabulary, and its library's defaults are one complete model.
  static constexpr std::array<std::string_view, 8> kPictureKeys = {
      "num_channels", "image_size",  "patch_size", "in_chans",
      "img_size",     "num_classes", "backbone",   "depths"};
  const auto given = [&](std::string_view key) { return source.config.find(key) != nullptr; };
  if (given("num_embeddings_per_feature")) return {};  // of a recommender: its reader asks
  if (std::any_of(kPictureKeys.begin(), kPictureKeys.end(), given)) return {};
  // Of a model of several: each part's sizes stand in a table of their own, which says little where
  // they are the class's defaults (Hugging Face saves what differs).
  if (given("vision_config")) return {};
  for (const auto& spellings : kNeeded) {
    const bool there = std::any_of(spellings.begin(), spellings.end(), [&](std::string_view key) {
      return source.config.find(key) != nullptr;
    });
    if (there) continue;
    return fail(
        Error{.code = ErrorCode::missing_value,
              .subject = source.name + ": " + std::string(spellings.front()),
              .found = "nothing",
              .accepted = "the key, as in the model's own config.json",
              .hint = fmt::format("is the file complete, and \"{}\" a model_type that is read "
                                  "(docs/model/graph.md)? A plan needs the model's sizes",
                                  *type->as_text())});
  }
  return {};
}

// An override that nearly bears the name of a key that is there is a misspelling of it.
Result<void> overrides_known_keys(const facts::ModelSource& source, const facts::Value& set) {
  const facts::Object* overrides = set.as_object();
  const facts::Object* keys = source.config.as_object();
  if (overrides == nullptr || keys == nullptr) return {};
  std::vector<std::string> known;
  for (const auto& [key, value] : *keys) known.push_back(key);
  for (const auto& [key, value] : *overrides) {
    if (source.config.find(key) != nullptr || key.find('.') != std::string::npos) continue;
    const auto nearest = nearest_name(key, known);
    if (!nearest) continue;  // a key that the file leaves to its default
    return fail(Error{.code = ErrorCode::unknown_name,
                      .subject = "model.set." + key,
                      .found = "no such key in " + source.name,
                      .accepted = "a key of the model's configuration",
                      .hint = "did you mean " + *nearest + "?"});
  }
  return {};
}

// An import may bring the model; reading other tools' configurations is not built yet.
Result<void> imports_no_model(const facts::ImportKeys& import) {
  const auto refuse = [](const char* key) {
    return fail(Error{.code = ErrorCode::not_supported,
                      .subject = key,
                      .found = "a value",
                      .accepted = "the job's own keys, with model.config",
                      .hint = "reading other tools' configurations is not built in this version"});
  };
  if (import.deepspeed) return refuse("import.deepspeed");
  if (import.accelerate) return refuse("import.accelerate");
  if (import.torchtitan) return refuse("import.torchtitan");
  return {};
}

}  // namespace

// A catalogue id or a path.
Result<facts::ModelSource> Catalog::named_model(const std::string& name,
                                                const std::filesystem::path& folder) const {
  const fs::path path = folder / name;
  std::error_code trouble;
  const bool has_path = name.find('/') != std::string::npos || name.ends_with(".json");
  const bool exists = fs::exists(path, trouble);
  if (!(has_path && exists)) {
    auto known = model(name.substr(0, name.starts_with("timm/") ? name.find('.') : name.npos));
    if (known) STEELYARD_CHECK(has_imagenet_head(name));
    if (!known && known.error().code == ErrorCode::unknown_name) known.error().found = name;
    // A damaged catalogue file is reported; a name that is no id may still be a file.
    if (known || known.error().code != ErrorCode::unknown_name) return known;
    if (!exists) {
      if (name.ends_with(".onnx") || is_weights(name)) return from_file(name, path);
      STEELYARD_CHECK(is_configuration(name));
      known.error().accepted += ", or the path of a config.json";
      return known;
    }
  }
  STEELYARD_TRY(read, from_file(name, path));
  const std::string* architecture = timm_architecture(read.config);
  if (architecture == nullptr) return read;
  STEELYARD_TRY(network, model("timm/" + *architecture));
  if (const facts::Value* classes = read.config.find("num_classes")) {
    facts::Value head = facts::Value(facts::Object{{"num_classes", *classes}});
    merge(network.config, head);
  }
  network.name = read.name;
  network.stored = read.stored;
  return network;
}

Result<std::vector<facts::ModelSource>> Catalog::companions_of(
    const facts::Job& job, const std::filesystem::path& folder) const {
  std::vector<facts::ModelSource> sources;
  for (std::size_t i = 0; i < job.model.companions.size(); ++i) {
    auto source = named_model(job.model.companions[i].config, folder);
    if (!source && source.error().subject == "model.config") {
      source.error().subject = fmt::format("model.companions[{}].config", i);
    }
    STEELYARD_TRY(found, std::move(source));
    sources.push_back(std::move(found));
  }
  return sources;
}

Result<std::vector<facts::ModelSource>> Catalog::roles_of(
    const facts::Job& job, const facts::ModelSource& policy,
    const std::filesystem::path& folder) const {
  std::vector<facts::ModelSource> sources;
  for (std::size_t i = 0; i < job.model.roles.size(); ++i) {
    const facts::RoleModel& role = job.model.roles[i];
    facts::ModelSource source = policy;
    if (const auto* inlined = std::get_if<facts::Value>(&role.config)) {
      source = {.name = "inline", .config = *inlined, .source = ""};
    } else if (const auto* name = std::get_if<std::string>(&role.config)) {
      auto found = named_model(*name, folder);
      if (!found && found.error().subject == "model.config") {
        found.error().subject = fmt::format("model.roles[{}].config", i);
      }
      STEELYARD_TRY(own, std::move(found));
      source = std::move(own);
    }
    STEELYARD_CHECK(overrides_known_keys(source, role.set));
    STEELYARD_CHECK(override_keys(source.config, role.set));
    sources.push_back(std::move(source));
  }
  return sources;
}

Result<facts::ModelSource> Catalog::model_of(const facts::Job& job,
                                             const std::filesystem::path& folder) const {
  const auto found = [&]() -> Result<facts::ModelSource> {
    if (const auto* inlined = std::get_if<facts::Value>(&job.model.config)) {
      return facts::ModelSource{.name = "inline", .config = *inlined, .source = ""};
    }
    const std::string* name = std::get_if<std::string>(&job.model.config);
    if (name == nullptr || name->empty()) {
      STEELYARD_CHECK(imports_no_model(job.import));
      return fail(Error{.code = ErrorCode::missing_value,
                        .subject = "model.config",
                        .found = "nothing",
                        .accepted = "a catalogue id, the path of a config.json, or its content",
                        .hint = "`steelyard list models` shows the ids"});
    }
    return named_model(*name, folder);
  };
  STEELYARD_TRY(source, found());
  if (source.onnx != nullptr && !job.model.set.is_null()) {
    return fail(Error{.code = ErrorCode::impossible_combination,
                      .subject = "model.set",
                      .found = "a value beside " + source.name,
                      .accepted = "no value",
                      .hint = "an ONNX file has no configuration to change: export it again"});
  }
  STEELYARD_CHECK(overrides_known_keys(source, job.model.set));
  STEELYARD_CHECK(override_keys(source.config, job.model.set));
  STEELYARD_CHECK(has_sizes(source));
  return source;
}

}  // namespace steelyard::catalog
