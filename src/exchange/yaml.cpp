#include "exchange/yaml.h"

#include <yaml.h>

#include <charconv>
#include <optional>
#include <utility>
#include <vector>

namespace steelyard::exchange {
namespace {

constexpr std::size_t kDeepest = 64;

template <class Number>
std::optional<Number> number_of(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  Number number{};
  const auto [end, trouble] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (trouble != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// Owns libyaml's parser and the event in hand.
class Events {
 public:
  explicit Events(std::string_view text) {
    ready_ = yaml_parser_initialize(&parser_) != 0;
    if (!ready_) return;
    yaml_parser_set_input_string(&parser_, reinterpret_cast<const unsigned char*>(text.data()),
                                 text.size());
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;
  ~Events() {
    drop();
    if (ready_) yaml_parser_delete(&parser_);
  }

  // False at an error of the text.
  bool next() {
    drop();
    held_ = ready_ && yaml_parser_parse(&parser_, &event_) != 0;
    return held_;
  }
  [[nodiscard]] const yaml_event_t& event() const { return event_; }
  [[nodiscard]] int line() const {
    const std::size_t index = held_ ? event_.start_mark.line : parser_.problem_mark.line;
    return static_cast<int>(index) + 1;
  }
  [[nodiscard]] std::string problem() const {
    return ready_ && parser_.problem != nullptr ? parser_.problem : "no readable YAML";
  }

 private:
  void drop() {
    if (held_) yaml_event_delete(&event_);
    held_ = false;
  }
  yaml_parser_t parser_{};
  yaml_event_t event_{};
  bool ready_ = false;
  bool held_ = false;
};

std::string_view text_of(const yaml_event_t& event) {
  return {reinterpret_cast<const char*>(event.data.scalar.value), event.data.scalar.length};
}

class Builder {
 public:
  Builder(std::string_view text, const std::string& name) : events_(text), name_(name) {}

  Result<facts::Value> run();

 private:
  struct Open {  // a mapping or sequence that is not closed yet
    bool mapping = false;
    facts::Object members;
    facts::Array items;
    std::optional<std::string> key;
  };

  Result<void> take();
  Result<void> take_scalar();
  Result<void> put(facts::Value value);
  Result<void> close();
  [[nodiscard]] Error wrong(std::string found, std::string accepted) const;

  Events events_;
  const std::string& name_;
  std::vector<Open> open_;
  std::optional<facts::Value> root_;
};

Error Builder::wrong(std::string found, std::string accepted) const {
  Error error;
  error.code = ErrorCode::bad_input;
  error.subject = "YAML";
  error.found = std::move(found);
  error.accepted = std::move(accepted);
  error.file = name_;
  error.line = events_.line();
  return error;
}

Result<void> Builder::put(facts::Value value) {
  if (open_.empty()) {
    if (root_) return fail(wrong("a second document", "one document"));
    root_ = std::move(value);
    return {};
  }
  Open& around = open_.back();
  if (!around.mapping) {
    around.items.push_back(std::move(value));
    return {};
  }
  if (!around.key) {
    const std::string* key = value.as_text();
    if (key == nullptr) return fail(wrong(value.kind_name(), "a name before the colon"));
    for (const auto& [known, unused] : around.members) {
      if (known == *key) return fail(wrong("\"" + *key + "\" twice", "each name once"));
    }
    around.key = *key;
    return {};
  }
  around.members.emplace_back(std::move(*around.key), std::move(value));
  around.key.reset();
  return {};
}

Result<void> Builder::take_scalar() {
  const yaml_event_t& event = events_.event();
  if (event.data.scalar.anchor != nullptr || event.data.scalar.tag != nullptr) {
    return fail(wrong("an anchor or a tag", "plain values"));
  }
  const std::string_view text = text_of(event);
  const bool is_key = !open_.empty() && open_.back().mapping && !open_.back().key;
  const bool plain = event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
  return put(plain && !is_key ? plain_scalar(text) : facts::Value(std::string(text)));
}

Result<void> Builder::close() {
  Open closed = std::move(open_.back());
  open_.pop_back();
  return put(closed.mapping ? facts::Value(std::move(closed.members))
                            : facts::Value(std::move(closed.items)));
}

Result<void> Builder::take() {
  switch (events_.event().type) {
    case YAML_SCALAR_EVENT: return take_scalar();
    case YAML_MAPPING_START_EVENT:
    case YAML_SEQUENCE_START_EVENT:
      if (open_.size() >= kDeepest) return fail(wrong("deep nesting", "at most 64 levels"));
      open_.push_back({.mapping = events_.event().type == YAML_MAPPING_START_EVENT,
                       .members = {},
                       .items = {},
                       .key = {}});
      return {};
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT: return close();
    case YAML_ALIAS_EVENT: return fail(wrong("an alias", "values written out"));
    default: return {};  // begin and end of stream and document
  }
}

Result<facts::Value> Builder::run() {
  for (bool more = true; more;) {
    if (!events_.next()) return fail(wrong(events_.problem(), "YAML"));
    more = events_.event().type != YAML_STREAM_END_EVENT;
    STEELYARD_CHECK(take());
  }
  return root_ ? std::move(*root_) : facts::Value();
}

}  // namespace

facts::Value plain_scalar(std::string_view text) {
  for (const char* word : {"true", "True", "TRUE"}) {
    if (text == word) return true;
  }
  for (const char* word : {"false", "False", "FALSE"}) {
    if (text == word) return false;
  }
  for (const char* word : {"", "~", "null", "Null", "NULL"}) {
    if (text == word) return {};
  }
  if (const auto whole = number_of<std::int64_t>(text)) return *whole;
  const bool numeric = text.find_first_of("0123456789") != std::string_view::npos;
  if (const auto real = numeric ? number_of<double>(text) : std::nullopt) return *real;
  return std::string(text);
}

Result<facts::Value> parse_yaml(std::string_view text, const std::string& name) {
  return Builder(text, name).run();
}

}  // namespace steelyard::exchange
