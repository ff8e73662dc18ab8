#include "codec/onnx_tensor.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <limits>
#include <optional>

#include "codec/utf8.h"

namespace steelyard::codec {

namespace {

using facts::OnnxElement;
using facts::OnnxTensor;

constexpr OnnxElement kFloat = 1, kUint8 = 2, kInt8 = 3, kUint16 = 4, kInt16 = 5, kInt32 = 6,
                      kInt64 = 7, kText = 8, kBool = 9, kFloat16 = 10, kDouble = 11, kUint32 = 12,
                      kUint64 = 13, kComplex64 = 14, kComplex128 = 15, kBfloat16 = 16;
constexpr OnnxElement kLast = 26;  // of onnx 1.20: 8-, 4- and 2-bit types lie between

bool is_whole(OnnxElement e) {
  return (e >= kUint8 && e <= kInt64) || e == kBool || e == kUint32 || e == kUint64;
}

bool is_plain_real(OnnxElement e) {
  return e == kFloat || e == kDouble || e == kFloat16 || e == kBfloat16;
}

double half(std::uint32_t bits) {
  const std::uint32_t exponent = (bits >> 10) & 31;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  const double fraction = static_cast<double>(bits & 1023) / 1024.0;
  if (exponent == 31) return sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * fraction / 16384.0;
  return sign * (1.0 + fraction) *
         (exponent >= 15 ? static_cast<double>(1U << (exponent - 15))
                         : 1.0 / static_cast<double>(1U << (15 - exponent)));
}

double real_of(OnnxElement element, std::uint64_t bits) {
  switch (element) {
    case kDouble: return std::bit_cast<double>(bits);
    case kFloat16: return half(static_cast<std::uint32_t>(bits));
    case kBfloat16:
      return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(bits << 16)));
    default: return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
  }
}

std::int64_t whole_of(OnnxElement element, std::uint64_t bits) {
  switch (element) {
    case kInt8: return static_cast<std::int8_t>(bits);
    case kInt16: return static_cast<std::int16_t>(bits);
    case kInt32: return static_cast<std::int32_t>(bits);
    default: return static_cast<std::int64_t>(bits);
  }
}

std::optional<std::int64_t> count_of(const std::vector<std::int64_t>& dims) {
  std::int64_t count = 1;
  for (const std::int64_t dim : dims) {
    if (__builtin_mul_overflow(count, dim, &count)) return std::nullopt;
  }
  return count;
}

}  // namespace

std::int64_t bytes_of_element(OnnxElement element) {
  switch (element) {
    case kText: return 0;
    case kUint16:
    case kInt16:
    case kFloat16:
    case kBfloat16: return 2;
    case kFloat:
    case kInt32:
    case kUint32: return 4;
    case kInt64:
    case kUint64:
    case kDouble:
    case kComplex64: return 8;
    case kComplex128: return 16;
    default: return element >= kFloat && element <= kLast ? 1 : 0;
  }
}

// What of a tensor's content was found, by field.
struct OnnxTensorReader::Content {
  std::optional<WireField> raw;
  std::vector<std::uint64_t> typed;  // of the fields for single types, up to the limits
  std::uint64_t beyond = 0;          // numbers not kept
  bool external = false;
  ExternalData data;
};

std::string OnnxTensorReader::text(const WireField& field) {
  std::string text;
  if (field.length() > limits_.text) {
    state_.refuse(field.begin, fmt::format("a name of {} bytes", field.length()));
    return text;
  }
  if (!state_.file.read(field.begin, field.length(), text)) {
    state_.refuse(field.begin, "the end of the file inside a name");
    return text;
  }
  state_.read += field.length();
  if (first_malformed_utf8(text)) {
    state_.refuse(field.begin, "a name that is not UTF-8");
    text.clear();
  }
  return text;
}

void OnnxTensorReader::add_dim(const WireField& at, std::int64_t size, OnnxTensor& tensor) {
  if (size < 0) state_.refuse(at.begin, fmt::format("a tensor with a size of {}", size));
  if (std::ssize(tensor.dims) >= limits_.dims) {
    state_.refuse(at.begin, fmt::format("a tensor of more than {} dimensions", limits_.dims));
  }
  if (state_.well()) tensor.dims.push_back(size);
}

void OnnxTensorReader::read_external(const WireField& message, ExternalData& data) {
  std::string key, value;
  WireCursor cursor(state_, message);
  while (const auto field = cursor.next()) {
    if (field->type != 2) continue;
    if (field->number == 1) key = text(*field);
    if (field->number == 2) value = text(*field);
  }
  if (key == "location") data.location = value;
  if (key != "offset" && key != "length") return;
  std::uint64_t& number = key == "offset" ? data.offset : data.length;
  const char* end = value.data() + value.size();
  const auto [last, code] = std::from_chars(value.data(), end, number);
  if (code != std::errc() || last != end) {
    state_.refuse(message.begin, fmt::format("external data with {} = \"{}\"", key, value));
  }
}

void OnnxTensorReader::read_fields(const WireField& message, OnnxTensor& tensor, Content& content) {
  WireCursor cursor(state_, message);
  while (const auto field = cursor.next()) {
    const std::uint32_t type = field->type;
    const bool message_like = type == 2;
    // Numbers come one by one or packed; those of a large tensor are passed over.
    const auto numbers = [&](int bytes) {
      const auto keep = [&](std::uint64_t value) {
        if (std::ssize(content.typed) >= limits_.wholes)
          ++content.beyond;
        else
          content.typed.push_back(value);
      };
      if (!message_like) return keep(field->value);
      if (field->length() > static_cast<std::uint64_t>(limits_.wholes) * 10) {
        ++content.beyond;
        return;
      }
      for (WireCursor list(state_, *field); !list.done();) {
        keep(bytes == 0 ? list.varint() : list.fixed(bytes));
      }
    };
    switch (field->number) {
      case 1:
        if (type == 0) add_dim(*field, field->whole(), tensor);
        for (WireCursor list(state_, *field); message_like && !list.done();) {
          add_dim(*field, static_cast<std::int64_t>(list.varint()), tensor);
        }
        break;
      case 2:
        if (type == 0) tensor.element = static_cast<OnnxElement>(field->value);
        break;
      case 4: numbers(4); break;
      case 5:
      case 7:
      case 11: numbers(0); break;
      case 10: numbers(8); break;
      case 8:
        if (message_like) tensor.name = text(*field);
        break;
      case 9:
        if (message_like) content.raw = *field;
        break;
      case 13:
        if (message_like) read_external(*field, content.data);
        break;
      case 14: content.external = field->value == 1; break;
      default: break;
    }
  }
}

void OnnxTensorReader::keep_raw(OnnxTensor& tensor, const WireField& raw, std::int64_t count) {
  const std::int64_t each = bytes_of_element(tensor.element);
  std::vector<std::uint64_t> bits;
  WireCursor cursor(state_, raw);
  for (std::int64_t i = 0; i < count && state_.well(); ++i) {
    bits.push_back(cursor.fixed(static_cast<int>(each)));
  }
  if (is_whole(tensor.element)) {
    tensor.wholes.emplace();
    for (const std::uint64_t value : bits)
      tensor.wholes->push_back(whole_of(tensor.element, value));
  } else {
    tensor.reals.emplace();
    for (const std::uint64_t value : bits) tensor.reals->push_back(real_of(tensor.element, value));
  }
}

void OnnxTensorReader::keep_values(OnnxTensor& tensor, const Content& content) {
  const std::int64_t count = *count_of(tensor.dims);
  const bool whole = is_whole(tensor.element);
  if (!whole && !is_plain_real(tensor.element)) return;
  if (count > (whole ? limits_.wholes : limits_.reals)) return;
  if (content.raw) return keep_raw(tensor, *content.raw, count);
  if (content.external || content.beyond > 0 || std::ssize(content.typed) != count) return;
  if (whole) {
    tensor.wholes.emplace();
    for (const std::uint64_t v : content.typed)
      tensor.wholes->push_back(whole_of(tensor.element, v));
  } else {
    tensor.reals.emplace();
    for (const std::uint64_t v : content.typed) tensor.reals->push_back(real_of(tensor.element, v));
  }
}

void OnnxTensorReader::keep_diagonal(OnnxTensor& tensor, const WireField& raw) {
  constexpr std::int64_t kElements = 16;
  if (tensor.dims.size() != 2 || !is_plain_real(tensor.element) || tensor.reals) return;
  const auto each = static_cast<std::uint64_t>(bytes_of_element(tensor.element));
  std::vector<std::uint64_t> bits;
  for (std::int64_t i = 0; i < kElements; ++i) {
    const auto along = [i](std::int64_t size) {
      return (size - 1) / (kElements - 1) * i + (size - 1) % (kElements - 1) * i / (kElements - 1);
    };
    const std::int64_t at = along(tensor.dims[0]) * tensor.dims[1] + along(tensor.dims[1]);
    WireCursor cursor(state_, raw.begin + static_cast<std::uint64_t>(at) * each, raw.end);
    bits.push_back(cursor.fixed(static_cast<int>(each)));
  }
  const bool alike = std::all_of(bits.begin(), bits.end(),
                                 [&](std::uint64_t value) { return value == bits.front(); });
  if (state_.well() && !alike) tensor.diagonal = std::move(bits);
}

OnnxTensor OnnxTensorReader::tensor(const WireField& message) {
  OnnxTensor tensor;
  Content content;
  read_fields(message, tensor, content);
  if (!state_.well()) return tensor;
  const std::int64_t each = bytes_of_element(tensor.element);
  if (tensor.element < kFloat || tensor.element > kLast) {
    state_.refuse(message.begin,
                  fmt::format("tensor \"{}\" of element type {}", tensor.name, tensor.element));
    return tensor;
  }
  const auto count = count_of(tensor.dims);
  std::int64_t bytes = 0;
  if (!count || __builtin_mul_overflow(*count, std::max<std::int64_t>(each, 1), &bytes)) {
    state_.refuse(message.begin,
                  fmt::format("tensor \"{}\", whose elements nobody can count", tensor.name));
    return tensor;
  }
  // Types of less than a byte lie packed.
  const bool narrow = tensor.element > kBfloat16 + 4;
  if (content.raw && each > 0 && !narrow &&
      content.raw->length() != static_cast<std::uint64_t>(bytes)) {
    state_.refuse(content.raw->begin, fmt::format("tensor \"{}\" with {} bytes of data, not {}",
                                                  tensor.name, content.raw->length(), bytes));
    return tensor;
  }
  if (content.external) {
    content.data.tensor = tensor.name;
    tensor.external = content.data.location;
    if (content.data.length == 0 && !narrow)
      content.data.length = static_cast<std::uint64_t>(bytes);
    if (!narrow && content.data.length != static_cast<std::uint64_t>(bytes)) {
      state_.refuse(message.begin,
                    fmt::format("tensor \"{}\" with {} bytes of external data, not {}", tensor.name,
                                content.data.length, bytes));
    }
    external_.push_back(std::move(content.data));
  }
  keep_values(tensor, content);
  if (content.raw && *count > limits_.reals) keep_diagonal(tensor, *content.raw);
  return tensor;
}

}  // namespace steelyard::codec
