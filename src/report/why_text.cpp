// The page of `steelyard why JOB vram`.
#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "base/text.h"
#include "report/page.h"
#include "report/plan_sections.h"
#include "report/report.h"

namespace steelyard::report {
namespace {

constexpr std::size_t kIndent = 18;  // of what stands right of size and share

std::string place_words(const facts::PeakAt& at, bool with_operation, const Paint& paint) {
  std::string words = paint.outside(at.phase);
  if (!at.layer.empty()) words += ", " + paint.outside(at.layer);
  if (with_operation && !at.operation.empty()) words += ", " + paint.outside(at.operation);
  return words;
}

// "64 x [14336, 4096] fp32"
std::string tensors_words(const facts::TensorGroup& group, const Paint& paint) {
  std::string words;
  if (group.tensors > 1) words = fmt::format("{} {} ", group.tensors, paint.signs().times);
  if (group.dtype.empty()) return words + "buffer" + (group.tensors > 1 ? "s" : "");
  return words + fmt::format("[{}] {}", fmt::join(group.shape, ", "), group.dtype);
}

// Births name no operator: that is the group's own. One in the layer of the group needs no layer.
std::string life_words(const facts::TensorGroup& group, const Paint& paint) {
  facts::PeakAt born = group.born;
  if (born.layer == group.layer) born.layer.clear();
  const std::string arrow(paint.signs().arrow);
  const std::string lives = "lives " + place_words(born, false, paint) + arrow;
  if (!group.freed) return lives + "end of the job";
  facts::PeakAt freed = *group.freed;
  if (freed.layer == group.layer) freed.layer.clear();
  return lives + place_words(freed, true, paint);
}

std::string size_and_share(Bytes bytes, Bytes whole) {
  return padded(to_text(bytes), 9, Align::right) +
         padded(percent(bytes / whole), 7, Align::right) + "  ";
}

Lines group_lines(const facts::TensorGroup& group, Bytes whole, std::size_t width,
                  const Paint& paint) {
  std::string name = paint.outside(group.operation);
  if (!group.layer.empty()) name += " of " + paint.outside(group.layer);
  const std::size_t room = std::max<std::size_t>(width, kIndent + 20) - kIndent;
  Lines lines = {size_and_share(group.bytes, whole) +
                 paint.ink(shortened(name, room), Ink::strong)};
  const std::string_view category = facts::name_of(group.category);
  const std::vector<std::string> words = {tensors_words(group, paint), std::string(category),
                                          life_words(group, paint)};
  for (const std::string& line : flowed(words, room, paint)) {
    lines.push_back(std::string(kIndent, ' ') + line);
  }
  return lines;
}

Lines tensor_lines(const facts::VramWhy& why, std::size_t most, std::size_t width,
                   const Paint& paint) {
  Bytes whole = why.workspaces;
  for (const facts::TensorGroup& group : why.tensors) whole += group.bytes;
  Lines lines;
  for (std::size_t i = 0; i < std::min(most, why.tensors.size()); ++i) {
    const Lines more = group_lines(why.tensors[i], whole, width, paint);
    lines.insert(lines.end(), more.begin(), more.end());
  }
  Bytes rest;
  for (std::size_t i = most; i < why.tensors.size(); ++i) rest += why.tensors[i].bytes;
  if (why.tensors.size() > most) {
    const std::size_t more = why.tensors.size() - most;
    lines.push_back(size_and_share(rest, whole) +
                    fmt::format("{} smaller group{}", more, more == 1 ? "" : "s"));
  }
  if (why.workspaces > Bytes(0)) {
    lines.push_back(size_and_share(why.workspaces, whole) + "workspaces of matrix products");
  }
  return lines;
}

}  // namespace

std::string why_text(const facts::VramWhy& why, const Style& style, std::size_t most) {
  const Paint paint(style);
  Page page(paint);
  const std::string alike =
      why.rank.ranks == 1 ? std::string() : fmt::format(" ({} alike)", why.rank.ranks);
  const std::string title = paint.ink(paint.outside(why.job), Ink::strong) +
                            ": what fills the GPU of a " + paint.outside(why.rank.kind) +
                            " at its peak" + alike;
  for (const std::string& line : wrapped(title, paint.columns())) page.line(line);
  page.blank();
  page.section("VRAM", rank_lines(why.rank, why.capacity, {}, page.width(), paint));
  page.blank();
  page.section("Tensors", tensor_lines(why, most, page.width(), paint));
  if (why.kinds.size() > 1) {
    page.blank();
    Lines lines;
    for (const std::string& kind : why.kinds) lines.push_back(paint.outside(kind));
    page.section("Ranks", flowed(lines, page.width(), paint));
  }
  return page.text();
}

}  // namespace steelyard::report
