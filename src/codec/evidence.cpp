#include "codec/evidence.h"

#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "codec/codec.h"

namespace steelyard::codec {
namespace {

using facts::Evidence;
using facts::Value;

constexpr const char* kSchema = "steelyard.evidence/1";
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

// Reads the cells of one row in their order; the first that is not what it should be counts.
class Cells {
 public:
  explicit Cells(const facts::Array& cells) : cells_(cells) {}

  void text(std::string& to) {
    const std::string* found = next() == nullptr ? nullptr : last_->as_text();
    if (found != nullptr) {
      to = *found;
    } else {
      good_ = false;
    }
  }
  void whole(std::int64_t& to) {
    double number = 0.0;
    real(number);
    to = static_cast<std::int64_t>(number);
    good_ = good_ && number >= 1.0 && number <= 1e9;
  }
  void real(double& to) {
    const Value* cell = next();
    const double* fraction = cell == nullptr ? nullptr : cell->as_real();
    const std::int64_t* whole = cell == nullptr ? nullptr : cell->as_whole();
    to = fraction != nullptr ? *fraction : whole != nullptr ? static_cast<double>(*whole) : 0.0;
    good_ = good_ && (fraction != nullptr || whole != nullptr) && std::isfinite(to);
  }
  [[nodiscard]] bool good() const { return good_ && at_ == cells_.size(); }

 private:
  const Value* next() {
    last_ = at_ < cells_.size() ? &cells_[at_++] : nullptr;
    return last_;
  }

  const facts::Array& cells_;
  const Value* last_ = nullptr;
  std::size_t at_ = 0;
  bool good_ = true;
};

std::optional<Evidence> row_from(const Value& value) {
  const facts::Array* array = value.as_array();
  if (array == nullptr) return std::nullopt;
  Cells cells(*array);
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

Value row_of(const Evidence& row) {
  constexpr double kDigits = 1e4;  // of an error, kept
  const facts::Likeness& of = row.of;
  return facts::Array{row.id,        std::string(facts::name_of(row.group)),
                      of.family,     of.architecture,
                      of.framework,  of.method,
                      of.precision,  of.sharding,
                      of.recompute,  of.tensor,
                      of.pipeline,   of.context,
                      of.expert,     of.gpus,
                      of.parameters, std::round(row.error.value() * kDigits) / kDigits};
}

}  // namespace

Result<std::vector<Evidence>> evidence_from(const Value& value, const std::string& name) {
  const Value* schema = value.find("schema");
  const Value* rows = value.find("rows");
  if (schema == nullptr || schema->as_text() == nullptr || *schema->as_text() != kSchema ||
      rows == nullptr || rows->as_array() == nullptr) {
    return fail(bad(name, "another content", std::string("schema ") + kSchema + " with rows"));
  }
  std::vector<Evidence> all;
  for (const Value& cells : *rows->as_array()) {
    std::optional<Evidence> row = row_from(cells);
    if (!row) {
      return fail(bad(name, "row " + std::to_string(all.size() + 1) + ", which is none",
                      fmt::format("{}", fmt::join(kColumns, ", "))));
    }
    all.push_back(std::move(*row));
  }
  return all;
}

std::string evidence_text(std::span<const Evidence> rows, const std::string& made_by) {
  facts::Array columns;
  for (const char* column : kColumns) columns.emplace_back(std::string(column));
  std::string text =
      fmt::format("{{\"schema\": \"{}\",\n\"made_by\": {},\n\"columns\": {},\n\"rows\": [", kSchema,
                  to_json(Value(made_by), -1), to_json(Value(std::move(columns)), -1));
  const char* between = "\n";
  for (const Evidence& row : rows) {
    text += between + to_json(row_of(row), -1);
    between = ",\n";
  }
  return text + "\n]}\n";
}

}  // namespace steelyard::codec
