// A parsed file together with the line of each of its keys, so that a later complaint about a value
// can say where it stands.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "codec/codec.h"
#include "facts/value.h"

namespace steelyard::codec {

// By dotted path; items of a list are "key[0]": "train.micro_batch", "model.companions[1].held".
using Lines = std::map<std::string, int, std::less<>>;

struct Document {
  facts::Value value;
  Lines lines;
};

// `lines` may be null: then none are recorded.
[[nodiscard]] Result<facts::Value> parse_json(std::string_view text, const std::string& name,
                                              Lines* lines);
[[nodiscard]] Result<facts::Value> parse_toml(std::string_view text, const std::string& name,
                                              Lines* lines);

[[nodiscard]] Result<Document> parse_document(std::string_view text, Format format,
                                              const std::string& name);
[[nodiscard]] Result<Document> read_document(const std::filesystem::path& file);

// .toml is TOML, everything else JSON.
[[nodiscard]] Format format_of(const std::filesystem::path& file);

// The line of the key, or of the nearest table around it.
[[nodiscard]] std::optional<int> line_of_key(const Lines& lines, std::string_view path);

// "a" + "b" is "a.b"; "" + "b" is "b".
[[nodiscard]] std::string joined(std::string_view table, std::string_view key);

}  // namespace steelyard::codec
