#include "codec/rehearsal.h"

#include "codec/reader.h"
#include "codec/rehearsal_fields.h"
#include "codec/writer.h"

namespace steelyard::codec {
namespace {

facts::Value without_nulls(const facts::Value& value) {
  if (const facts::Object* object = value.as_object()) {
    facts::Object kept;
    for (const auto& [key, member] : *object) {
      if (!member.is_null()) kept.emplace_back(key, without_nulls(member));
    }
    return kept;
  }
  if (const facts::Array* array = value.as_array()) {
    facts::Array kept;
    for (const facts::Value& item : *array) kept.push_back(without_nulls(item));
    return kept;
  }
  return value;
}

}  // namespace

Result<facts::Rehearsal> rehearsal_from(const facts::Value& value, const std::string& name) {
  const facts::Value known = without_nulls(value);
  Reading reading;
  reading.file = name;
  facts::Rehearsal rehearsal;
  Reader reader(reading, known.as_object(), "");
  rehearsal_fields(reader, rehearsal);
  reader.finish();
  STEELYARD_CHECK(reading.outcome());
  return rehearsal;
}

facts::Value to_value(const facts::Rehearsal& rehearsal) {
  facts::Rehearsal copy = rehearsal;
  Writer writer;
  rehearsal_fields(writer, copy);
  return writer.take();
}

}  // namespace steelyard::codec
