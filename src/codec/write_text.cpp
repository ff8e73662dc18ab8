#include "codec/write_text.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "codec/codec.h"
#include "codec/utf8.h"

namespace steelyard::codec {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD
constexpr std::size_t kLongestShown = 60;                  // characters of a value in a message

void append_escaped(std::string& out, char c) {
  switch (c) {
    case '"': out += "\\\""; return;
    case '\\': out += "\\\\"; return;
    case '\n': out += "\\n"; return;
    case '\r': out += "\\r"; return;
    case '\t': out += "\\t"; return;
    default: break;
  }
  const auto byte = static_cast<unsigned char>(c);
  if (byte < 0x20 || byte == 0x7F) {
    out += fmt::format("\\u{:04x}", byte);
  } else {
    out += c;
  }
}

bool is_scalar(const facts::Value& value) {
  return value.as_array() == nullptr && value.as_object() == nullptr;
}

class JsonWriter {
 public:
  explicit JsonWriter(int indent) : indent_(indent) {}

  void write(const facts::Value& value, int depth) {
    if (const auto* object = value.as_object()) {
      write_object(*object, depth);
    } else if (const auto* array = value.as_array()) {
      write_array(*array, depth);
    } else {
      out_ += scalar(value);
    }
  }

  std::string take() { return std::move(out_); }

 private:
  static std::string scalar(const facts::Value& value) {
    if (const bool* b = value.as_bool()) return *b ? "true" : "false";
    if (const auto* n = value.as_whole()) return std::to_string(*n);
    // JSON has no infinity and no NaN: what is not a number is unknown.
    if (const auto* x = value.as_real()) return std::isfinite(*x) ? real_text(*x) : "null";
    if (const auto* text = value.as_text()) return json_text(*text);
    return "null";
  }

  void new_line(int depth) {
    if (indent_ < 0) return;
    out_ += '\n';
    out_.append(static_cast<std::size_t>(indent_ * depth), ' ');
  }

  void write_object(const facts::Object& members, int depth) {
    if (members.empty()) {
      out_ += "{}";
      return;
    }
    out_ += '{';
    bool first = true;
    for (const auto& [key, value] : members) {
      if (!first) out_ += ',';
      first = false;
      new_line(depth + 1);
      out_ += json_text(key);
      out_ += indent_ < 0 ? ":" : ": ";
      write(value, depth + 1);
    }
    new_line(depth);
    out_ += '}';
  }

  // Lists of scalars stand on one line.
  void write_array(const facts::Array& items, int depth) {
    bool flat = true;
    for (const auto& item : items) flat = flat && is_scalar(item);
    out_ += '[';
    bool first = true;
    for (const auto& item : items) {
      if (!first) out_ += flat && indent_ >= 0 ? ", " : ",";
      first = false;
      if (!flat) new_line(depth + 1);
      write(item, depth + 1);
    }
    if (!flat) new_line(depth);
    out_ += ']';
  }

  int indent_;
  std::string out_;
};

std::string toml_key(std::string_view key) {
  const bool bare = !key.empty() && key.find_first_not_of(
                                        "abcdefghijklmnopqrstuvwxyz"
                                        "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                        "0123456789_-") == std::string_view::npos;
  return bare ? std::string(key) : json_text(key);
}

std::optional<std::string> toml_array(const facts::Array& items) {
  std::string out = "[";
  for (const auto& item : items) {
    const auto text = to_toml(item);
    if (!text) return std::nullopt;
    if (out.size() > 1) out += ", ";
    out += *text;
  }
  return out + "]";
}

std::optional<std::string> toml_table(const facts::Object& members) {
  std::string out = "{";
  for (const auto& [key, value] : members) {
    if (value.is_null()) continue;
    const auto text = to_toml(value);
    if (!text) return std::nullopt;
    out += fmt::format("{}{} = {}", out.size() > 1 ? ", " : " ", toml_key(key), *text);
  }
  return out + (out.size() > 1 ? " }" : "}");
}

}  // namespace

std::string real_text(double x) {
  if (std::isnan(x)) return "nan";
  if (std::isinf(x)) return x > 0 ? "inf" : "-inf";
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof digits, x).ptr;
  std::string text(digits, end);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string json_text(std::string_view text) {
  std::string out = "\"";
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_sequence(text, at);
    if (length == 0) {
      out += kReplacement;
      ++at;
    } else if (length == 1) {
      append_escaped(out, text[at++]);
    } else {
      out += text.substr(at, length);
      at += length;
    }
  }
  return out + '"';
}

std::string to_json(const facts::Value& value, int indent) {
  JsonWriter writer(indent);
  writer.write(value, 0);
  return writer.take();
}

std::optional<std::string> to_toml(const facts::Value& value) {
  if (value.is_null()) return std::nullopt;
  if (const auto* items = value.as_array()) return toml_array(*items);
  if (const auto* members = value.as_object()) return toml_table(*members);
  if (const auto* x = value.as_real()) return real_text(*x);
  return to_json(value, -1);
}

std::string shown(const facts::Value& value) {
  if (value.as_object() != nullptr) return value.kind_name();
  if (const auto* x = value.as_real()) return real_text(*x);
  std::string text = to_json(value, -1);
  if (text.size() <= kLongestShown) return text;
  std::size_t cut = kLongestShown;
  while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
  return text.substr(0, cut) + "...";
}

}  // namespace steelyard::codec
