#include "codec/evidence.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cmath>
#include <optional>
#include <string_view>

#include "codec/codec.h"

namespace steelyard::codec {
namespace {

using facts::Evidence;

// Tables of text: thousands of rows are read with every plan.
constexpr std::string_view kSchema = "steelyard.evidence/1";
constexpr const char* kColumns[] = {"case",      "group",  "family",     "architecture",
                                    "framework", "method", "precision",  "sharding",
                                    "recompute", "tensor", "pipeline",   "context",
                                    "expert",    "gpus",   "parameters", "error"};

Error bad(const std::string& name, std::string found, std::string accepted) {
  return {.code = ErrorCode::bad_input,
          .subject = name,
          .found = std::move(found),
          .accepted = std::move(accepted),
          .hint = "steelyard validate validation/cases --evidence FILE writes it"};
}

std::string_view take(std::string_view& rest, char separator) {
  const std::string_view part = rest.substr(0, rest.find(separator));
  rest.remove_prefix(std::min(rest.size(), part.size() + 1));
  return part;
}

// Reads the cells of one row in their order; the first that is not what it should be counts.
class Cells {
 public:
  explicit Cells(std::string_view line) : rest_(line) {}

  void text(std::string& to) {
    good_ = good_ && !rest_.empty();
    to = take(rest_, '\t');
  }
  void whole(std::int64_t& to) {
    double number = 0.0;
    real(number);
    good_ = good_ && number >= 1.0 && number <= 1e9;
    to = good_ ? static_cast<std::int64_t>(number) : 1;
  }
  void real(double& to) {
    const std::string_view cell = take(rest_, '\t');
    const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), to);
    good_ = good_ && error == std::errc() && end == cell.data() + cell.size() && std::isfinite(to);
  }
  [[nodiscard]] bool good() const { return good_ && rest_.empty(); }

 private:
  std::string_view rest_;
  bool good_ = true;
};

std::optional<Evidence> row_from(std::string_view line) {
  Cells cells(line);
  Evidence row;
  std::string group;
  double error = 0.0;
  cells.text(row.id);
  cells.text(group);
  for (std::string* text : {&row.of.family, &row.of.architecture, &row.of.framework, &row.of.method,
                            &row.of.precision, &row.of.sharding, &row.of.recompute}) {
    cells.text(*text);
  }
  for (std::int64_t* size :
       {&row.of.tensor, &row.of.pipeline, &row.of.context, &row.of.expert, &row.of.gpus}) {
    cells.whole(*size);
  }
  cells.real(row.of.parameters);
  cells.real(error);
  const auto known = facts::from_name<facts::QuantityGroup>(group);
  if (!cells.good() || !known) return std::nullopt;
  row.group = *known;
  row.error = Ratio(error);
  return row;
}

std::string row_of(const Evidence& row) {
  const facts::Likeness& of = row.of;
  return fmt::format("{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{:.0f}\t{:.4f}",
                     row.id, facts::name_of(row.group), of.family, of.architecture, of.framework,
                     of.method, of.precision, of.sharding, of.recompute, of.tensor, of.pipeline,
                     of.context, of.expert, of.gpus, of.parameters, row.error.value());
}

}  // namespace

Result<std::vector<Evidence>> evidence_from(std::string_view text, const std::string& name) {
  const std::string_view head = take(text, '\n');
  if (!head.starts_with("# ") || !head.substr(2).starts_with(kSchema)) {
    return fail(bad(name, "another content", fmt::format("a first line of # {}", kSchema)));
  }
  take(text, '\n');  // the columns
  std::vector<Evidence> all;
  while (!text.empty()) {
    std::optional<Evidence> row = row_from(take(text, '\n'));
    if (!row) {
      return fail(bad(name, "row " + std::to_string(all.size() + 1) + ", which is none",
                      fmt::format("{}", fmt::join(kColumns, ", "))));
    }
    all.push_back(std::move(*row));
  }
  return all;
}

std::string evidence_text(std::span<const Evidence> rows, const std::string& made_by) {
  std::string text =
      fmt::format("# {} made by {}\n{}\n", kSchema, made_by, fmt::join(kColumns, "\t"));
  for (const Evidence& row : rows) text += row_of(row) + "\n";
  return text;
}

}  // namespace steelyard::codec
