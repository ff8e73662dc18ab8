// Quantities with units as types: a number that crosses a function boundary says what it counts.
//
//   Bytes, Parameters, Samples, Tokens    whole numbers (64 bit, signed: a shortage is negative)
//   Seconds, Flops, Ratio                 real numbers
//   BytesPerSecond, FlopsPerSecond, SamplesPerSecond, TokensPerSecond   rates
//
// Construction is explicit, arithmetic is dimension-correct (Bytes / BytesPerSecond is Seconds,
// Bytes + Seconds does not compile), whole numbers are overflow-checked: what does not fit into 64
// bits throws QuantityOverflow, which the composing room (`plan`) turns into an error for the user.
#pragma once

#include <cmath>
#include <compare>
#include <cstdint>
#include <limits>
#include <stdexcept>

namespace steelyard {

// A whole quantity left the 64-bit range: the input asks for an absurd amount.
class QuantityOverflow : public std::overflow_error {
 public:
  using std::overflow_error::overflow_error;
};

[[noreturn]] void throw_quantity_overflow();

inline std::int64_t checked_add(std::int64_t a, std::int64_t b) {
  std::int64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) throw_quantity_overflow();
  return sum;
}

inline std::int64_t checked_subtract(std::int64_t a, std::int64_t b) {
  std::int64_t difference = 0;
  if (__builtin_sub_overflow(a, b, &difference)) throw_quantity_overflow();
  return difference;
}

inline std::int64_t checked_multiply(std::int64_t a, std::int64_t b) {
  std::int64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) throw_quantity_overflow();
  return product;
}

// The nearest whole number; throws QuantityOverflow outside of 64 bits and on NaN.
inline std::int64_t checked_round(double value) {
  constexpr double kLimit = 9223372036854774784.0;  // the largest double below 2^63
  if (!(value >= -kLimit && value <= kLimit)) throw_quantity_overflow();
  return std::llround(value);
}

// A whole number of things of one kind. Tag makes the kinds distinct types.
template <class Tag>
class WholeQuantity {
 public:
  constexpr WholeQuantity() = default;
  constexpr explicit WholeQuantity(std::int64_t value) : value_(value) {}

  [[nodiscard]] constexpr std::int64_t value() const { return value_; }
  // For formulas that leave the whole numbers (ratios, rates).
  [[nodiscard]] constexpr double real() const { return static_cast<double>(value_); }

  friend constexpr auto operator<=>(WholeQuantity, WholeQuantity) = default;

  friend WholeQuantity operator+(WholeQuantity a, WholeQuantity b) {
    return WholeQuantity(checked_add(a.value_, b.value_));
  }
  friend WholeQuantity operator-(WholeQuantity a, WholeQuantity b) {
    return WholeQuantity(checked_subtract(a.value_, b.value_));
  }
  friend WholeQuantity operator-(WholeQuantity a) { return WholeQuantity() - a; }
  friend WholeQuantity operator*(WholeQuantity a, std::int64_t times) {
    return WholeQuantity(checked_multiply(a.value_, times));
  }
  friend WholeQuantity operator*(std::int64_t times, WholeQuantity a) { return a * times; }
  WholeQuantity& operator+=(WholeQuantity other) { return *this = *this + other; }
  WholeQuantity& operator-=(WholeQuantity other) { return *this = *this - other; }

 private:
  std::int64_t value_ = 0;
};

// A real number of one unit.
template <class Tag>
class RealQuantity {
 public:
  constexpr RealQuantity() = default;
  constexpr explicit RealQuantity(double value) : value_(value) {}

  [[nodiscard]] constexpr double value() const { return value_; }

  friend constexpr auto operator<=>(RealQuantity, RealQuantity) = default;

  friend constexpr RealQuantity operator+(RealQuantity a, RealQuantity b) {
    return RealQuantity(a.value_ + b.value_);
  }
  friend constexpr RealQuantity operator-(RealQuantity a, RealQuantity b) {
    return RealQuantity(a.value_ - b.value_);
  }
  friend constexpr RealQuantity operator*(RealQuantity a, double times) {
    return RealQuantity(a.value_ * times);
  }
  friend constexpr RealQuantity operator*(double times, RealQuantity a) { return a * times; }
  friend constexpr RealQuantity operator/(RealQuantity a, double parts) {
    return RealQuantity(a.value_ / parts);
  }
  constexpr RealQuantity& operator+=(RealQuantity other) { return *this = *this + other; }
  constexpr RealQuantity& operator-=(RealQuantity other) { return *this = *this - other; }

 private:
  double value_ = 0.0;
};

using Bytes = WholeQuantity<struct BytesTag>;
using Parameters = WholeQuantity<struct ParametersTag>;
using Samples = WholeQuantity<struct SamplesTag>;
using Tokens = WholeQuantity<struct TokensTag>;

using Seconds = RealQuantity<struct SecondsTag>;
using Flops = RealQuantity<struct FlopsTag>;  // floating-point operations; a multiply-add is two
using Ratio = RealQuantity<struct RatioTag>;  // dimensionless, 1 = equal
using BytesPerSecond = RealQuantity<struct BytesPerSecondTag>;
using FlopsPerSecond = RealQuantity<struct FlopsPerSecondTag>;
using SamplesPerSecond = RealQuantity<struct SamplesPerSecondTag>;
using TokensPerSecond = RealQuantity<struct TokensPerSecondTag>;

// Equal kinds divide to a ratio.
template <class Tag>
Ratio operator/(WholeQuantity<Tag> a, WholeQuantity<Tag> b) {
  return Ratio(a.real() / b.real());
}
template <class Tag>
constexpr Ratio operator/(RealQuantity<Tag> a, RealQuantity<Tag> b) {
  return Ratio(a.value() / b.value());
}

inline Seconds operator/(Bytes amount, BytesPerSecond rate) {
  return Seconds(amount.real() / rate.value());
}
inline BytesPerSecond operator/(Bytes amount, Seconds time) {
  return BytesPerSecond(amount.real() / time.value());
}
inline Bytes operator*(BytesPerSecond rate, Seconds time) {
  return Bytes(checked_round(rate.value() * time.value()));
}
inline Bytes operator*(Seconds time, BytesPerSecond rate) {
  return rate * time;
}

constexpr Seconds operator/(Flops amount, FlopsPerSecond rate) {
  return Seconds(amount.value() / rate.value());
}
constexpr FlopsPerSecond operator/(Flops amount, Seconds time) {
  return FlopsPerSecond(amount.value() / time.value());
}
constexpr Flops operator*(FlopsPerSecond rate, Seconds time) {
  return Flops(rate.value() * time.value());
}

inline SamplesPerSecond operator/(Samples amount, Seconds time) {
  return SamplesPerSecond(amount.real() / time.value());
}
inline TokensPerSecond operator/(Tokens amount, Seconds time) {
  return TokensPerSecond(amount.real() / time.value());
}
inline Seconds operator/(Samples amount, SamplesPerSecond rate) {
  return Seconds(amount.real() / rate.value());
}

// A share of whole things, rounded to the nearest.
template <class Tag>
WholeQuantity<Tag> operator*(WholeQuantity<Tag> amount, Ratio share) {
  return WholeQuantity<Tag>(checked_round(amount.real() * share.value()));
}
template <class Tag>
constexpr RealQuantity<Tag> scaled(RealQuantity<Tag> amount, Ratio share) {
  return amount * share.value();
}

// ceil(a / parts) for parts >= 1: an even split whose last part may be smaller.
inline std::int64_t ceil_divide(std::int64_t a, std::int64_t parts) {
  return checked_add(a, parts - 1) / parts;
}
inline std::int64_t round_up(std::int64_t a, std::int64_t multiple) {
  return checked_multiply(ceil_divide(a, multiple), multiple);
}
template <class Tag>
WholeQuantity<Tag> ceil_divide(WholeQuantity<Tag> a, std::int64_t parts) {
  return WholeQuantity<Tag>(ceil_divide(a.value(), parts));
}
template <class Tag>
WholeQuantity<Tag> round_up(WholeQuantity<Tag> a, WholeQuantity<Tag> multiple) {
  return WholeQuantity<Tag>(round_up(a.value(), multiple.value()));
}

// Literals spell the unit: 80_GiB is 80 * 2^30 bytes, 80_GB is 80 * 10^9 bytes.
namespace literals {

consteval Bytes operator""_B(unsigned long long n) {
  return Bytes(static_cast<std::int64_t>(n));
}
consteval Bytes operator""_KiB(unsigned long long n) {
  return Bytes(static_cast<std::int64_t>(n) << 10);
}
consteval Bytes operator""_MiB(unsigned long long n) {
  return Bytes(static_cast<std::int64_t>(n) << 20);
}
consteval Bytes operator""_GiB(unsigned long long n) {
  return Bytes(static_cast<std::int64_t>(n) << 30);
}
consteval Bytes operator""_TiB(unsigned long long n) {
  return Bytes(static_cast<std::int64_t>(n) << 40);
}
consteval Bytes operator""_kB(unsigned long long n) {
  return Bytes(static_cast<std::int64_t>(n) * 1'000);
}
consteval Bytes operator""_MB(unsigned long long n) {
  return Bytes(static_cast<std::int64_t>(n) * 1'000'000);
}
consteval Bytes operator""_GB(unsigned long long n) {
  return Bytes(static_cast<std::int64_t>(n) * 1'000'000'000);
}
consteval Bytes operator""_TB(unsigned long long n) {
  return Bytes(static_cast<std::int64_t>(n) * 1'000'000'000'000);
}
consteval Seconds operator""_s(long double n) {
  return Seconds(static_cast<double>(n));
}
consteval Seconds operator""_s(unsigned long long n) {
  return Seconds(static_cast<double>(n));
}
consteval Seconds operator""_ms(long double n) {
  return Seconds(static_cast<double>(n) * 1e-3);
}
consteval Seconds operator""_ms(unsigned long long n) {
  return Seconds(static_cast<double>(n) * 1e-3);
}
consteval Seconds operator""_us(long double n) {
  return Seconds(static_cast<double>(n) * 1e-6);
}
consteval Seconds operator""_us(unsigned long long n) {
  return Seconds(static_cast<double>(n) * 1e-6);
}
consteval Flops operator""_FLOP(unsigned long long n) {
  return Flops(static_cast<double>(n));
}
consteval Flops operator""_GFLOP(long double n) {
  return Flops(static_cast<double>(n) * 1e9);
}
consteval Flops operator""_GFLOP(unsigned long long n) {
  return Flops(static_cast<double>(n) * 1e9);
}
consteval Flops operator""_TFLOP(long double n) {
  return Flops(static_cast<double>(n) * 1e12);
}
consteval Flops operator""_TFLOP(unsigned long long n) {
  return Flops(static_cast<double>(n) * 1e12);
}
consteval FlopsPerSecond operator""_TFLOP_per_s(long double n) {
  return FlopsPerSecond(static_cast<double>(n) * 1e12);
}
consteval FlopsPerSecond operator""_TFLOP_per_s(unsigned long long n) {
  return FlopsPerSecond(static_cast<double>(n) * 1e12);
}
consteval BytesPerSecond operator""_GB_per_s(long double n) {
  return BytesPerSecond(static_cast<double>(n) * 1e9);
}
consteval BytesPerSecond operator""_GB_per_s(unsigned long long n) {
  return BytesPerSecond(static_cast<double>(n) * 1e9);
}
consteval BytesPerSecond operator""_TB_per_s(long double n) {
  return BytesPerSecond(static_cast<double>(n) * 1e12);
}

}  // namespace literals
}  // namespace steelyard
