// TOML through toml++. It recurses over what it read, so the nesting is limited before it sees the
// text; its tables are sorted by name, so the order of the file is restored from the positions.
#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>

#include "codec/document.h"
#include "codec/utf8.h"

namespace steelyard::codec {
namespace {

Error too_deep(const std::string& name, int line) {
  return {.code = ErrorCode::too_large,
          .subject = "nesting",
          .found = fmt::format("more than {} levels", kDeepestNesting),
          .accepted = fmt::format("at most {} levels", kDeepestNesting),
          .hint = {},
          .file = name,
          .line = line};
}

bool is_bare_key(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-';
}

// Counts open brackets and the parts of dotted keys outside of strings and comments.
class NestingScan {
 public:
  explicit NestingScan(std::string_view text) : text_(text) {}

  // The line where the limit is passed.
  std::optional<int> too_deep_line() {
    while (at_ < text_.size()) {
      step();
      if (brackets_ > kDeepestNesting || dots_ > kDeepestNesting) return line_of(text_, at_);
    }
    return std::nullopt;
  }

 private:
  void step() {
    const char c = text_[at_];
    if (c == '#') {
      at_ = std::min(text_.find('\n', at_), text_.size());
      end_key();
    } else if (c == '"' || c == '\'') {
      skip_string(c);
      after_key_ = true;
    } else {
      ++at_;
      see(c);
    }
  }

  void see(char c) {
    if (c == '.' && after_key_) {
      ++dots_;
      after_key_ = false;
    } else if (is_bare_key(c)) {
      after_key_ = true;
    } else if (c != ' ' && c != '\t') {
      end_key();
      if (c == '[' || c == '{') ++brackets_;
      if ((c == ']' || c == '}') && brackets_ > 0) --brackets_;
    }
  }

  void end_key() {
    dots_ = 0;
    after_key_ = false;
  }

  void skip_string(char quote) {
    const std::string triple(3, quote);
    const bool multi_line = text_.substr(at_, 3) == triple;
    at_ += multi_line ? 3 : 1;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '\\' && quote == '"') {
        at_ += 2;
      } else if (multi_line ? text_.substr(at_, 3) == triple : c == quote) {
        at_ += multi_line ? 3 : 1;
        return;
      } else if (!multi_line && c == '\n') {
        return;  // a syntax error, which the parser will name
      } else {
        ++at_;
      }
    }
    at_ = text_.size();
  }

  std::string_view text_;
  std::size_t at_ = 0;
  int brackets_ = 0;
  int dots_ = 0;
  bool after_key_ = false;
};

class Converter {
 public:
  Converter(const std::string& name, Lines* lines) : name_(name), lines_(lines) {}

  Result<facts::Value> table(const toml::table& from, const std::string& path, int depth) {
    if (depth > kDeepestNesting) return fail(too_deep(name_, line(from)));
    std::vector<std::pair<const toml::key*, const toml::node*>> members;
    for (const auto& [key, node] : from) members.emplace_back(&key, &node);
    std::stable_sort(members.begin(), members.end(), [](const auto& a, const auto& b) {
      return a.first->source().begin < b.first->source().begin;
    });
    facts::Object object;
    object.reserve(members.size());
    for (const auto& [key, node] : members) {
      const std::string inner = joined(path, key->str());
      if (lines_ != nullptr) {
        lines_->emplace(inner, static_cast<int>(key->source().begin.line));
      }
      STEELYARD_TRY(value, convert(*node, inner, depth));
      object.emplace_back(std::string(key->str()), std::move(value));
    }
    return facts::Value(std::move(object));
  }

 private:
  static int line(const toml::node& node) { return static_cast<int>(node.source().begin.line); }

  Result<facts::Value> array(const toml::array& from, const std::string& path, int depth) {
    if (depth > kDeepestNesting) return fail(too_deep(name_, line(from)));
    facts::Array items;
    items.reserve(from.size());
    for (const toml::node& node : from) {
      const std::string inner = fmt::format("{}[{}]", path, items.size());
      if (lines_ != nullptr) lines_->emplace(inner, line(node));
      STEELYARD_TRY(value, convert(node, inner, depth));
      items.push_back(std::move(value));
    }
    return facts::Value(std::move(items));
  }

  Result<facts::Value> convert(const toml::node& node, const std::string& path, int depth) {
    switch (node.type()) {
      case toml::node_type::table: return table(*node.as_table(), path, depth + 1);
      case toml::node_type::array: return array(*node.as_array(), path, depth + 1);
      case toml::node_type::string: return facts::Value(node.as_string()->get());
      case toml::node_type::integer: return facts::Value(node.as_integer()->get());
      case toml::node_type::floating_point: return facts::Value(node.as_floating_point()->get());
      case toml::node_type::boolean: return facts::Value(node.as_boolean()->get());
      default: break;
    }
    return fail({.code = ErrorCode::bad_input,
                 .subject = path,
                 .found = "a date or time",
                 .accepted = "text, a number, true, false, a list or a table",
                 .hint = "put it in quotes",
                 .file = name_,
                 .line = line(node)});
  }

  const std::string& name_;
  Lines* lines_;
};

}  // namespace

Result<facts::Value> parse_toml(std::string_view text, const std::string& name, Lines* lines) {
  if (const auto line = NestingScan(text).too_deep_line()) return fail(too_deep(name, *line));
  try {
    const toml::table root = toml::parse(text);
    return Converter(name, lines).table(root, "", 1);
  } catch (const toml::parse_error& error) {
    return fail({.code = ErrorCode::bad_input,
                 .subject = "TOML syntax",
                 .found = std::string(error.description()),
                 .accepted = "well-formed TOML",
                 .hint = {},
                 .file = name,
                 .line = static_cast<int>(error.source().begin.line)});
  }
}

}  // namespace steelyard::codec
