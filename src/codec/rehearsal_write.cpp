#include "codec/codec.h"
#include "codec/rehearsal_fields.h"
#include "codec/writer.h"

namespace steelyard::codec {

facts::Value to_value(const facts::Rehearsal& rehearsal) {
  facts::Rehearsal copy = rehearsal;
  Writer writer;
  rehearsal_fields(writer, copy);
  return writer.take();
}

}  // namespace steelyard::codec
