#include "model/layer_pattern.h"

#include <charconv>
#include <string>

namespace steelyard::model {

namespace {

constexpr std::size_t kMostLayers = 100'000;
constexpr int kDeepest = 16;

class Pattern {
 public:
  explicit Pattern(std::string text) : text_(std::move(text)) {}

  std::optional<std::vector<int>> read() {
    std::optional<std::vector<int>> all = sum();
    return all && at_ == text_.size() ? all : std::nullopt;
  }

 private:
  using Kinds = std::optional<std::vector<int>>;

  [[nodiscard]] bool takes(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  std::optional<std::size_t> number() {
    std::size_t value = 0;
    const char* begin = text_.data() + at_;
    const auto [end, trouble] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (trouble != std::errc() || value > kMostLayers) return std::nullopt;
    at_ += static_cast<std::size_t>(end - begin);
    return value;
  }

  Kinds sum() {
    Kinds all = product();
    while (all && takes('+')) {
      const Kinds next = product();
      if (!next || all->size() + next->size() > kMostLayers) return std::nullopt;
      all->insert(all->end(), next->begin(), next->end());
    }
    return all;
  }

  Kinds product() {
    Kinds unit = one();
    if (!unit || !takes('*')) return unit;
    const auto times = number();
    if (!times || unit->size() * *times > kMostLayers) return std::nullopt;
    std::vector<int> all;
    for (std::size_t i = 0; i < *times; ++i) all.insert(all.end(), unit->begin(), unit->end());
    return all;
  }

  Kinds one() {
    if (takes('(')) {
      if (++depth_ > kDeepest) return std::nullopt;
      Kinds inner = sum();
      --depth_;
      return inner && takes(')') ? inner : std::nullopt;
    }
    if (!takes('[')) return std::nullopt;
    std::vector<int> kinds;
    do {
      const auto kind = number();
      if (!kind || *kind > 1) return std::nullopt;
      kinds.push_back(static_cast<int>(*kind));
    } while (takes(','));
    return takes(']') ? Kinds(std::move(kinds)) : std::nullopt;
  }

  std::string text_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

std::optional<std::int64_t> whole_of(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, trouble] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (trouble != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<std::vector<int>> layer_pattern(std::string_view text) {
  std::string plain;
  for (char c : text) {
    if (c != ' ') plain += c;
  }
  return Pattern(std::move(plain)).read();
}

}  // namespace steelyard::model
