#include "codec/document.h"

#include <algorithm>

namespace steelyard::codec {

Format format_of(const std::filesystem::path& file) {
  return file.extension() == ".toml" ? Format::toml : Format::json;
}

std::string joined(std::string_view table, std::string_view key) {
  if (table.empty()) return std::string(key);
  return std::string(table) + "." + std::string(key);
}

std::optional<int> line_of_key(const Lines& lines, std::string_view path) {
  while (!path.empty()) {
    if (const auto found = lines.find(path); found != lines.end()) return found->second;
    const std::size_t cut = path.find_last_of(".[");
    path = cut == std::string_view::npos ? std::string_view() : path.substr(0, cut);
  }
  return std::nullopt;
}

Result<facts::Value> parse(std::string_view text, Format format, const std::string& name) {
  return format == Format::toml ? parse_toml(text, name, nullptr) : parse_json(text, name, nullptr);
}

Result<facts::Value> read_value(const std::filesystem::path& file) {
  STEELYARD_TRY(text, read_text(file));
  return parse(text, format_of(file), file.string());
}

Result<Document> parse_document(std::string_view text, Format format, const std::string& name) {
  Document document;
  auto value = format == Format::toml ? parse_toml(text, name, &document.lines)
                                      : parse_json(text, name, &document.lines);
  if (!value) return fail(std::move(value).error());
  document.value = std::move(*value);
  return document;
}

Result<Document> read_document(const std::filesystem::path& file) {
  STEELYARD_TRY(text, read_text(file));
  return parse_document(text, format_of(file), file.string());
}

}  // namespace steelyard::codec
