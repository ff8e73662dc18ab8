// A machine file: read and written by the same table of fields.
#include "codec/codec.h"
#include "codec/machine_fields.h"
#include "codec/reader.h"
#include "codec/writer.h"

namespace steelyard::codec {

Result<facts::Machine> machine_from(const facts::Value& value, const std::string& name) {
  if (value.as_object() == nullptr) {
    Error error = wrong(value, "a table of machine keys");
    error.subject = "machine";
    error.file = name;
    return fail(std::move(error));
  }
  facts::Machine machine;
  Reading reading;
  reading.file = name;
  Reader reader(reading, value.as_object(), "");
  machine_fields(reader, machine);
  reader.finish();
  STEELYARD_CHECK(reading.outcome());
  return machine;
}

facts::Value to_value(const facts::Machine& machine) {
  facts::Machine copy = machine;
  Writer writer;
  machine_fields(writer, copy);
  return writer.take();
}

}  // namespace steelyard::codec
