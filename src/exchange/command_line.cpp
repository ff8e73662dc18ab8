#include "exchange/command_line.h"

#include <algorithm>
#include <utility>

#include "exchange/yaml.h"

namespace steelyard::exchange {
namespace {

class Splitter {
 public:
  Splitter(std::string_view text, const std::string& name) : text_(text), name_(name) {}

  Result<std::vector<std::string>> run();

 private:
  Result<void> plain(char c);
  Result<void> quoted(char quote);
  void end_word();
  void skip_comment();
  [[nodiscard]] Error wrong(std::string found, std::string accepted) const;

  std::string_view text_;
  const std::string& name_;
  std::size_t at_ = 0;
  int line_ = 1;
  std::string word_;
  bool in_word_ = false;
  std::vector<std::string> words_;
};

Error Splitter::wrong(std::string found, std::string accepted) const {
  Error error;
  error.code = ErrorCode::bad_input;
  error.subject = "command line";
  error.found = std::move(found);
  error.accepted = std::move(accepted);
  error.hint = "write the values out: nothing is executed and no variable is looked up";
  error.file = name_;
  error.line = line_;
  return error;
}

void Splitter::end_word() {
  if (in_word_) words_.push_back(std::exchange(word_, {}));
  in_word_ = false;
}

void Splitter::skip_comment() {
  while (at_ < text_.size() && text_[at_] != '\n') ++at_;
}

Result<void> Splitter::quoted(char quote) {
  in_word_ = true;
  for (++at_; at_ < text_.size() && text_[at_] != quote; ++at_) {
    char c = text_[at_];
    if (quote == '"' && c == '\\' && at_ + 1 < text_.size()) c = text_[++at_];
    if (quote == '"' && (c == '$' || c == '`')) {
      return fail(wrong("a variable or command in quotes", "plain text"));
    }
    if (c == '\n') ++line_;
    word_ += c;
  }
  if (at_ >= text_.size()) return fail(wrong("a quote that stays open", "a closing quote"));
  return {};
}

Result<void> Splitter::plain(char c) {
  switch (c) {
    case '\n': ++line_; [[fallthrough]];
    case ' ':
    case '\t':
    case '\r': end_word(); return {};
    case '\\':
      if (at_ + 1 < text_.size() && text_[at_ + 1] == '\r') ++at_;
      if (++at_ >= text_.size()) return {};
      if (text_[at_] == '\n') {  // the command goes on
        ++line_;
        return {};
      }
      word_ += text_[at_];
      in_word_ = true;
      return {};
    case '\'':
    case '"': return quoted(c);
    case '#':
      if (in_word_) break;
      skip_comment();
      --at_;  // the newline itself ends the line
      return {};
    case '$':
    case '`':
    case ';':
    case '&':
    case '|':
    case '<':
    case '>': return fail(wrong(std::string("\"") + c + "\"", "one plain command"));
    default: break;
  }
  word_ += c;
  in_word_ = true;
  return {};
}

Result<std::vector<std::string>> Splitter::run() {
  for (; at_ < text_.size(); ++at_) STEELYARD_CHECK(plain(text_[at_]));
  end_word();
  return std::move(words_);
}

bool is_argument(const std::string& word) {
  return word.starts_with("--") && word.size() > 2;
}

facts::Value value_of(const std::vector<std::string>& values) {
  if (values.empty()) return true;
  if (values.size() == 1) return plain_scalar(values.front());
  facts::Array items;
  for (const std::string& value : values) items.push_back(plain_scalar(value));
  return items;
}

}  // namespace

Result<std::vector<std::string>> shell_words(std::string_view text, const std::string& name) {
  return Splitter(text, name).run();
}

Result<facts::Value> parse_command_line(std::string_view text, const std::string& name) {
  STEELYARD_TRY(words, shell_words(text, name));
  auto word = std::find_if(words.begin(), words.end(),
                           [](const std::string& w) { return w.ends_with(".py"); });
  word = std::find_if(word == words.end() ? words.begin() : word, words.end(), is_argument);
  facts::Value arguments{facts::Object{}};
  while (word != words.end()) {
    std::string argument = word->substr(2);
    std::vector<std::string> values;
    if (const auto cut = argument.find('='); cut != std::string::npos) {
      values.push_back(argument.substr(cut + 1));
      argument.resize(cut);
    }
    for (++word; word != words.end() && !is_argument(*word); ++word) values.push_back(*word);
    arguments.set(argument, value_of(values));
  }
  return arguments;
}

}  // namespace steelyard::exchange
