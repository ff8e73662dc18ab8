// TFRecord (tensorflow/core/lib/io/record_writer.h): length (8 bytes), masked CRC-32C of the length
// (4), data, masked CRC-32C of the data (4). Inside, a tf.train.Example
// (tensorflow/core/example/example.proto): Example.features = 1, Features.feature = 1 (a map entry:
// key = 1, value = 2), Feature.bytes_list = 1, BytesList.value = 1.
#include <fmt/format.h>

#include <optional>
#include <string>

#include "rehearse/formats/crc32c.h"
#include "rehearse/formats/index.h"

namespace steelyard::rehearse {
namespace {

constexpr std::uint64_t kHead = 12, kFoot = 4;

struct Span {
  std::uint64_t begin = 0, end = 0;  // offsets in the file
};

struct Field {
  std::uint32_t number = 0;
  Span value{};  // of a length-delimited field; else empty
};

// Walks the fields of one message of protocol buffers (encoding: protobuf.dev, "Encoding").
class Message {
 public:
  Message(SourceFile& file, Span span) : file_(file), at_(span.begin), end_(span.end) {}

  // Nothing at the end, and nothing when the bytes are no message.
  std::optional<Field> next() {
    const std::optional<std::uint64_t> tag = varint();
    if (!tag || *tag >> 3 == 0 || *tag >> 32 != 0) return std::nullopt;
    Field field{static_cast<std::uint32_t>(*tag >> 3)};
    std::uint64_t length = 0;
    switch (*tag & 7U) {
      case 0: return varint() ? std::optional(field) : std::nullopt;
      case 1: length = 8; break;
      case 5: length = 4; break;
      case 2: {
        const std::optional<std::uint64_t> stated = varint();
        if (!stated) return std::nullopt;
        length = *stated;
        break;
      }
      default: return std::nullopt;
    }
    if (length > end_ - at_) return std::nullopt;
    if ((*tag & 7U) == 2) field.value = {at_, at_ + length};
    at_ += length;
    return field;
  }

  // The first field of that number.
  std::optional<Span> find(std::uint32_t number) {
    while (const std::optional<Field> field = next()) {
      if (field->number == number) return field->value;
    }
    return std::nullopt;
  }

 private:
  std::optional<std::uint64_t> varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && at_ < end_; shift += 7) {
      const auto byte = file_.at(at_, 1);
      if (!byte) return std::nullopt;
      ++at_;
      value |= static_cast<std::uint64_t>((*byte)[0] & 0x7fU) << shift;
      if (((*byte)[0] & 0x80U) == 0) return value;
    }
    return std::nullopt;
  }

  SourceFile& file_;
  std::uint64_t at_;
  std::uint64_t end_;
};

Encoding encoding_of_content(SourceFile& file, Span span) {
  constexpr std::size_t kMagic = 8;
  if (span.end - span.begin < kMagic) return Encoding::raw;
  const auto bytes = file.at(span.begin, kMagic);
  if (!bytes) return Encoding::raw;
  const std::string_view start(reinterpret_cast<const char*>(bytes->data()), kMagic);
  if (start.starts_with("\xff\xd8\xff")) return Encoding::jpeg;
  return start == "\x89PNG\r\n\x1a\n" ? Encoding::png : Encoding::raw;
}

// The encoded image of an Example: the bytes under "image/encoded" (ImageNet, COCO and Open Images
// as TensorFlow's scripts write them) or "image"; nothing when there is none.
std::optional<Span> image_of(SourceFile& file, Span record) {
  const std::optional<Span> features = Message(file, record).find(1);
  if (!features) return std::nullopt;
  Message entries(file, *features);
  while (const std::optional<Field> entry = entries.next()) {
    if (entry->number != 1) continue;
    const std::optional<Span> key = Message(file, entry->value).find(1);
    const std::uint64_t length = key ? key->end - key->begin : 0;
    if (!key || length > 32) continue;
    const auto text = file.at(key->begin, static_cast<std::size_t>(length));
    if (!text) return std::nullopt;
    const std::string name(text->begin(), text->end());
    if (name != "image/encoded" && name != "image") continue;
    const std::optional<Span> feature = Message(file, entry->value).find(2);
    const std::optional<Span> list = feature ? Message(file, *feature).find(1) : std::nullopt;
    const std::optional<Span> image = list ? Message(file, *list).find(1) : std::nullopt;
    if (image && encoding_of_content(file, *image) != Encoding::raw) return image;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> length_from(std::span<const unsigned char> head) {
  const bool right = masked(crc32c(head.first(8))) == le32(&head[8]);
  return right ? std::optional(le64(head.data())) : std::nullopt;
}

}  // namespace

bool looks_like_tfrecord(SourceFile& file) {
  const auto head = file.at(0, kHead);
  return head && length_from(*head).has_value();
}

Part<void> index_tfrecord(SourceFile& file, Index& index) {
  for (std::uint64_t at = 0; at < file.size();) {
    const auto head = file.at(at, kHead);
    if (!head) return Broken("is truncated: " + head.error());
    const std::optional<std::uint64_t> length = length_from(*head);
    if (!length) return broken_at(at, "has no TFRecord (wrong checksum of the length)");
    const std::uint64_t data = at + kHead;
    if (!file.holds(data, *length) || !file.holds(data + *length, kFoot)) {
      return broken_at(at, fmt::format("is truncated: a record of {} bytes goes past the end ({})",
                                       *length, file.size()));
    }
    const Span record{data, data + *length};
    const Span taken = image_of(file, record).value_or(record);
    const Encoding encoding = encoding_of_content(file, taken);
    if (!index.add(taken.begin, taken.end - taken.begin, encoding)) return {};
    at = record.end + kFoot;
  }
  return {};
}

}  // namespace steelyard::rehearse
