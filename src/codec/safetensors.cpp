#include "codec/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "codec/codec.h"
#include "codec/utf8.h"
#include "codec/wire.h"

namespace steelyard::codec {

namespace {

namespace fs = std::filesystem;
using facts::StoredTensor;
using facts::StoredTensors;
using facts::Value;

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::ptrdiff_t kMostDimensions = 64;
constexpr std::size_t kMostShards = 10'000;

struct Type {
  std::string_view name;
  std::int64_t bits;
};
// safetensors/src/tensor.rs, Dtype (0.6).
constexpr std::array<Type, 20> kTypes = {
    {{"BOOL", 8},    {"U8", 8},   {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8},
     {"F8_E8M0", 8}, {"I16", 16}, {"U16", 16}, {"F16", 16},    {"BF16", 16},
     {"I32", 32},    {"U32", 32}, {"F32", 32}, {"F64", 64},    {"I64", 64},
     {"U64", 64},    {"C64", 64}, {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6}}};

Error bad(const fs::path& file, std::string subject, std::string found, std::string accepted,
          std::string hint = "is the file complete, and a safetensors file?") {
  return {.code = ErrorCode::bad_input,
          .subject = std::move(subject),
          .found = std::move(found),
          .accepted = std::move(accepted),
          .hint = std::move(hint),
          .file = file.string()};
}

Result<std::string> header_of(WireFile& bytes, const fs::path& file) {
  std::string text;
  const auto refuse = [&](std::string found, std::string accepted) {
    return fail(bad(file, "safetensors header", std::move(found), std::move(accepted)));
  };
  if (!bytes.read(0, kLengthBytes, text)) {
    return refuse(fmt::format("a file of {} bytes", bytes.size()), "8 bytes and a header");
  }
  std::uint64_t length = 0;
  for (std::size_t i = kLengthBytes; i-- > 0;) {
    length = length << 8 | static_cast<unsigned char>(text[i]);
  }
  if (length > bytes.size() - kLengthBytes) {
    return refuse(fmt::format("a length of {} bytes in a file of {}", length, bytes.size()),
                  "a header that ends inside of its file");
  }
  if (length > static_cast<std::uint64_t>(kLargestFile.value())) {
    return refuse(fmt::format("a length of {} bytes", length),
                  fmt::format("at most {}", kLargestFile.value()));
  }
  text.clear();
  if (!bytes.read(kLengthBytes, length, text)) return refuse("a read error", "a readable file");
  if (const auto at = first_malformed_utf8(text)) {
    return refuse(fmt::format("byte {} of the header, which is no UTF-8", *at), "JSON in UTF-8");
  }
  return text;
}

// Whole numbers that are not negative.
std::optional<std::vector<std::int64_t>> sizes_of(const Value* value) {
  const facts::Array* items = value != nullptr ? value->as_array() : nullptr;
  if (items == nullptr || std::ssize(*items) > kMostDimensions) return std::nullopt;
  std::vector<std::int64_t> sizes;
  for (const Value& item : *items) {
    const std::int64_t* size = item.as_whole();
    if (size == nullptr || *size < 0) return std::nullopt;
    sizes.push_back(*size);
  }
  return sizes;
}

struct Place {
  std::int64_t begin = 0, end = 0;
  std::size_t tensor = 0;
};

Result<Place> read_entry(const fs::path& file, const std::string& name, const Value& entry,
                         StoredTensor& tensor) {
  const auto refuse = [&](std::string found, std::string accepted) {
    return fail(bad(file, "tensor " + name, std::move(found), std::move(accepted)));
  };
  const Value* dtype = entry.find("dtype");
  const std::string* type = dtype != nullptr ? dtype->as_text() : nullptr;
  const auto known = std::find_if(kTypes.begin(), kTypes.end(), [&](const Type& each) {
    return type != nullptr && each.name == *type;
  });
  if (known == kTypes.end()) {
    return refuse(type != nullptr ? "dtype " + *type : std::string("no dtype"),
                  "F32, F16, BF16, I64 or another type of safetensors");
  }
  const auto shape = sizes_of(entry.find("shape"));
  if (!shape) return refuse("no shape of whole numbers", "sizes from 0, at most 64 of them");
  const auto offsets = sizes_of(entry.find("data_offsets"));
  if (!offsets || offsets->size() != 2 || (*offsets)[1] < (*offsets)[0]) {
    return refuse("no data_offsets of two rising whole numbers", "[begin, end]");
  }
  std::int64_t bits = known->bits;
  for (const std::int64_t size : *shape) {
    if (__builtin_mul_overflow(bits, size, &bits)) {
      return refuse("a shape whose elements nobody can count",
                    "sizes of a tensor that could exist");
    }
  }
  tensor = {name, *type, *shape, (bits + 7) / 8};
  if ((*offsets)[1] - (*offsets)[0] != tensor.bytes) {
    return refuse(fmt::format("{} bytes of data", (*offsets)[1] - (*offsets)[0]),
                  fmt::format("{}, as shape and dtype say", tensor.bytes));
  }
  return Place{(*offsets)[0], (*offsets)[1], 0};
}

// One behind the other from the first byte to the last.
Result<void> check_places(const fs::path& file, const StoredTensors& stored,
                          std::vector<Place> places, std::uint64_t data) {
  std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::int64_t next = 0;
  for (const Place& place : places) {
    if (place.begin == next) {
      next = place.end;
      continue;
    }
    return fail(bad(file, "tensor " + stored.tensors[place.tensor].name,
                    fmt::format("data from byte {} to {}, where the one before ends at {}",
                                place.begin, place.end, next),
                    "data without overlaps and holes"));
  }
  if (static_cast<std::uint64_t>(next) == data) return {};
  return fail(bad(file, "safetensors file", fmt::format("{} bytes of data", data),
                  fmt::format("{}, as the header says", next),
                  "was it copied or downloaded to its end?"));
}

Error not_an_object(const fs::path& file, const char* what, const Value& value) {
  return bad(file, what, value.kind_name(), "an object of tensors by name");
}

Result<StoredTensors> read_one(const fs::path& file) {
  STEELYARD_TRY(bytes, WireFile::open(file));
  STEELYARD_TRY(text, header_of(bytes, file));
  const std::uint64_t data = bytes.size() - kLengthBytes - text.size();
  STEELYARD_TRY(header, parse(text, Format::json, file.string()));
  const facts::Object* entries = header.as_object();
  if (entries == nullptr) return fail(not_an_object(file, "safetensors header", header));
  StoredTensors stored;
  stored.file = file.filename().string();
  std::vector<Place> places;
  for (const auto& [name, entry] : *entries) {
    if (name == "__metadata__") continue;
    StoredTensor tensor;
    STEELYARD_TRY(place, read_entry(file, name, entry, tensor));
    place.tensor = stored.tensors.size();
    places.push_back(place);
    stored.tensors.push_back(std::move(tensor));
  }
  STEELYARD_CHECK(check_places(file, stored, std::move(places), data));
  return stored;
}

// A file beside the index, by its plain name.
bool is_plain(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string("/\\\0", 3)) == std::string::npos;
}

}  // namespace

Result<std::shared_ptr<const StoredTensors>> read_safetensors(const fs::path& file) {
  STEELYARD_TRY(stored, read_one(file));
  return std::make_shared<const StoredTensors>(std::move(stored));
}

Result<std::shared_ptr<const StoredTensors>> read_safetensors_index(const fs::path& file) {
  STEELYARD_TRY(index, read_value(file));
  const Value* map = index.find("weight_map");
  const facts::Object* entries = map != nullptr ? map->as_object() : nullptr;
  if (entries == nullptr) {
    return fail(bad(file, "weight_map", map == nullptr ? "nothing" : map->kind_name(),
                    "an object: tensor -> file", "is this a model.safetensors.index.json?"));
  }
  std::set<std::string> shards;
  for (const auto& [name, shard] : *entries) {
    const std::string* text = shard.as_text();
    if (text == nullptr || !is_plain(*text)) {
      return fail(bad(file, "weight_map: " + name, text == nullptr ? shard.kind_name() : *text,
                      "the name of a file beside the index", ""));
    }
    shards.insert(*text);
  }
  if (shards.size() > kMostShards) {
    return fail(bad(file, "weight_map", fmt::format("{} files", shards.size()),
                    fmt::format("at most {}", kMostShards), ""));
  }
  auto all = std::make_shared<StoredTensors>();
  all->file = file.filename().string();
  std::unordered_set<std::string_view> listed;
  for (const auto& [name, shard] : *entries) listed.insert(name);
  std::unordered_set<std::string> held;
  for (const std::string& shard : shards) {
    STEELYARD_TRY(part, read_one(file.parent_path() / shard));
    for (StoredTensor& tensor : part.tensors) {
      if (!held.insert(tensor.name).second) {
        return fail(bad(file, "tensor " + tensor.name, "two files that hold it", "one", ""));
      }
      if (!listed.contains(tensor.name)) continue;  // in the file, but no part of the model
      all->tensors.push_back(std::move(tensor));
    }
  }
  for (const auto& [name, shard] : *entries) {
    if (held.contains(name)) continue;
    return fail(bad(file, "tensor " + name, "a file without it: " + *shard.as_text(),
                    "the file that holds it", "do index and files belong together?"));
  }
  return all;
}

}  // namespace steelyard::codec
