// JSON through nlohmann's event parser, which does not recurse: depth, duplicate keys and whole
// numbers beyond 64 bits are refused here, while reading, and the line of each key is recorded.
#include <fmt/format.h>

#include <iterator>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "codec/document.h"
#include "codec/write_text.h"

namespace steelyard::codec {
namespace {

// Walks the text and counts lines as the parser advances; copies share the counter.
struct CountingIterator {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  const char* at = nullptr;
  int* line = nullptr;

  reference operator*() const { return *at; }
  CountingIterator& operator++() {
    if (*at == '\n') ++*line;
    ++at;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator before = *this;
    ++*this;
    return before;
  }
  friend bool operator==(const CountingIterator& a, const CountingIterator& b) {
    return a.at == b.at;
  }
};

// A table or list that is not closed yet.
struct Open {
  bool is_object = false;
  facts::Object members;
  facts::Array items;
  std::unordered_set<std::string> names;  // only filled for large tables
  std::string path;
};

// Tables up to this size are searched, larger ones also keep a set: no quadratic time.
constexpr std::size_t kSearchedMembers = 16;

class Builder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  Builder(std::string name, const int* line, Lines* lines)
      : name_(std::move(name)), line_(line), lines_(lines) {}

  bool null() override { return add(facts::Value()); }
  bool boolean(bool b) override { return add(facts::Value(b)); }
  bool number_integer(std::int64_t n) override { return add(facts::Value(n)); }
  bool number_unsigned(std::uint64_t n) override {
    if (n > static_cast<std::uint64_t>(INT64_MAX)) return beyond_64_bits(std::to_string(n));
    return add(facts::Value(static_cast<std::int64_t>(n)));
  }
  bool number_float(double x, const std::string& text) override {
    if (text.find_first_of(".eE") == std::string::npos) return beyond_64_bits(text);
    return add(facts::Value(x));
  }
  bool string(std::string& text) override { return add(facts::Value(std::move(text))); }
  bool binary(nlohmann::json::binary_t&) override { return false; }  // not of JSON text

  bool start_object(std::size_t) override { return open(true); }
  bool start_array(std::size_t) override { return open(false); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& key) override {
    Open& table = open_.back();
    if (is_duplicate(table, key)) {
      return refuse(ErrorCode::bad_input, joined(table.path, key), "the same key twice",
                    "each key once in a table");
    }
    if (lines_ != nullptr) lines_->emplace(joined(table.path, key), *line_);
    table.members.emplace_back(std::move(key), facts::Value());
    return true;
  }

  bool parse_error(std::size_t, const std::string& last,
                   const nlohmann::json::exception& e) override {
    if (e.id == 406) {  // out_of_range.406: a number that no double can hold
      return refuse(ErrorCode::bad_input, "number", last, "a number up to 1.8e308");
    }
    const std::string what = e.what();
    const bool ended = what.find("unexpected end of input") != std::string::npos;
    const std::string found = ended ? "the end of the text" : json_text(last);
    return refuse(ErrorCode::bad_input, "JSON syntax", found, expected(what));
  }

  facts::Value take() { return std::move(root_); }
  Error error() const { return error_; }

 private:
  // nlohmann: "... - unexpected end of input; expected '}'": what follows "expected " helps.
  static std::string expected(std::string_view what) {
    constexpr std::string_view kMark = "; expected ";
    const std::size_t at = what.rfind(kMark);
    if (at != std::string_view::npos) return std::string(what.substr(at + kMark.size()));
    return "well-formed JSON";
  }

  bool refuse(ErrorCode code, std::string subject, std::string found, std::string accepted) {
    error_ = {.code = code,
              .subject = std::move(subject),
              .found = std::move(found),
              .accepted = std::move(accepted),
              .hint = {},
              .file = name_,
              .line = *line_};
    return false;
  }

  bool beyond_64_bits(const std::string& text) {
    return refuse(ErrorCode::bad_input, here(), text, "a whole number of 64 bits");
  }

  std::string here() const {
    if (open_.empty()) return "number";
    const Open& around = open_.back();
    if (around.is_object) return joined(around.path, around.members.back().first);
    return fmt::format("{}[{}]", around.path, around.items.size());
  }

  static bool is_duplicate(Open& table, const std::string& key) {
    if (table.members.size() < kSearchedMembers) {
      for (const auto& [name, value] : table.members) {
        if (name == key) return true;
      }
      return false;
    }
    if (table.names.empty()) {
      for (const auto& [name, value] : table.members) table.names.insert(name);
    }
    return !table.names.insert(key).second;
  }

  bool open(bool is_object) {
    if (open_.size() >= static_cast<std::size_t>(kDeepestNesting)) {
      return refuse(ErrorCode::too_large, "nesting",
                    fmt::format("more than {} levels", kDeepestNesting),
                    fmt::format("at most {} levels", kDeepestNesting));
    }
    Open next;
    next.is_object = is_object;
    if (lines_ != nullptr && !open_.empty()) next.path = here();
    open_.push_back(std::move(next));
    return true;
  }

  bool close() {
    Open closed = std::move(open_.back());
    open_.pop_back();
    return add(closed.is_object ? facts::Value(std::move(closed.members))
                                : facts::Value(std::move(closed.items)));
  }

  bool add(facts::Value value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (open_.back().is_object) {
      open_.back().members.back().second = std::move(value);
    } else {
      open_.back().items.push_back(std::move(value));
    }
    return true;
  }

  std::string name_;
  const int* line_;
  Lines* lines_;
  std::vector<Open> open_;
  facts::Value root_;
  Error error_;
};

}  // namespace

Result<facts::Value> parse_json(std::string_view text, const std::string& name, Lines* lines) {
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) {
    return fail({.code = ErrorCode::bad_input,
                 .subject = "JSON syntax",
                 .found = "nothing but blanks",
                 .accepted = "a JSON value",
                 .hint = {},
                 .file = name,
                 .line = 1});
  }
  int line = 1;
  Builder builder(name, &line, lines);
  const CountingIterator begin{text.data(), &line};
  const CountingIterator end{text.data() + text.size(), &line};
  if (!nlohmann::json::sax_parse(begin, end, &builder)) return fail(builder.error());
  return builder.take();
}

}  // namespace steelyard::codec
