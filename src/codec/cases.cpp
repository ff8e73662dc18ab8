// Files of measured cases, and what validation found.
#include <algorithm>
#include <array>
#include <unordered_set>

#include "codec/case_fields.h"
#include "codec/codec.h"
#include "codec/reader.h"
#include "codec/writer.h"

namespace steelyard::codec {
namespace {

constexpr std::array<std::string_view, 3> kConfidences = {"high", "medium", "low"};
constexpr std::string_view kLastStage = "last_stage";

Error in_case(const facts::Case& c, const char* key, std::string found, std::string accepted) {
  return {.code = ErrorCode::bad_input,
          .subject = fmt::format("{} of case \"{}\"", key, c.id),
          .found = std::move(found),
          .accepted = std::move(accepted),
          .hint = {},
          .file = {},
          .line = {}};
}

Result<void> check_bracket(const facts::Case& c, const char* key, const std::optional<Bytes>& low,
                           const std::optional<Bytes>& high) {
  if (low.has_value() != high.has_value()) {
    return fail(in_case(c, key, "only one end of the bracket", "both ends: low and high"));
  }
  if (low && *low > *high) {
    return fail(in_case(c, key, fmt::format("{} to {}", low->value(), high->value()),
                        "a low end that is not above the high one"));
  }
  return {};
}

// What the table of fields cannot say: words that are plain text in facts, and pairs of keys.
Result<void> check(const facts::Case& c) {
  if (c.id.empty()) return fail(in_case(c, "id", "nothing", "a unique name"));
  if (!c.confidence.empty() &&
      std::find(kConfidences.begin(), kConfidences.end(), c.confidence) == kConfidences.end()) {
    return fail(in_case(c, "confidence", json_text(c.confidence), "high, medium or low"));
  }
  const facts::Measured& m = c.measured;
  if (m.vram_rank && *m.vram_rank != kLastStage) {
    return fail(in_case(c, "measured.vram_rank", json_text(*m.vram_rank), "last_stage"));
  }
  STEELYARD_CHECK(check_bracket(c, "measured.vram_low and vram_high", m.vram_low, m.vram_high));
  return check_bracket(c, "measured.ram_low and ram_high", m.ram_low, m.ram_high);
}

Result<facts::CaseFile> keep(WrittenCases written, const std::filesystem::path& path) {
  facts::CaseFile file;
  file.path = path.string();
  file.source = path.stem().string();
  file.title = std::move(written.source.title);
  std::unordered_set<std::string> ids;
  for (auto& entry : written.cases) {
    facts::Case& kept = entry.kept;
    kept.source = file.source;
    if (auto good = check(kept); !good) {
      Error error = std::move(good).error();
      error.file = file.path;
      return fail(std::move(error));
    }
    if (!ids.insert(kept.id).second) {
      Error error = in_case(kept, "id", "the same id twice", "each id once");
      error.file = file.path;
      return fail(std::move(error));
    }
    file.cases.push_back(std::move(kept));
  }
  return file;
}

}  // namespace

Result<facts::CaseFile> read_cases(const std::filesystem::path& path) {
  STEELYARD_TRY(document, read_document(path));
  if (document.value.as_object() == nullptr) {
    Error error = wrong(document.value, "a table with \"schema\", \"source\" and \"cases\"");
    error.subject = "cases";
    error.file = path.string();
    return fail(std::move(error));
  }
  WrittenCases written;
  Reading reading;
  reading.file = path.string();
  reading.lines = &document.lines;
  Reader reader(reading, document.value.as_object(), "");
  cases_fields(reader, written);
  reader.finish();
  STEELYARD_CHECK(reading.outcome());
  return keep(std::move(written), path);
}

Result<std::vector<facts::CaseNote>> read_case_notes(const std::filesystem::path& path) {
  STEELYARD_TRY(document, read_document(path));
  if (document.value.as_object() == nullptr) {
    Error error = wrong(document.value, "a table with \"schema\" and \"notes\"");
    error.subject = "notes";
    error.file = path.string();
    return fail(std::move(error));
  }
  WrittenNotes written;
  Reading reading;
  reading.file = path.string();
  reading.lines = &document.lines;
  Reader reader(reading, document.value.as_object(), "");
  notes_fields(reader, written);
  reader.finish();
  STEELYARD_CHECK(reading.outcome());
  return std::move(written.notes);
}

facts::Value to_value(const facts::Validation& validation) {
  facts::Validation copy = validation;
  Writer writer;
  validation_fields(writer, copy);
  return writer.take();
}

}  // namespace steelyard::codec
