#include "rehearse/image/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace steelyard::rehearse {
namespace {

constexpr std::int32_t kHalf = Taps::kWhole / 2;

std::uint8_t rounded(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp((sum + kHalf) >> Taps::kBits, 0, 255));
}

// Real weights to whole ones that sum to kWhole: what rounding leaves goes to the largest.
void write_weights(const std::vector<double>& real, std::int16_t* whole) {
  double sum = 0;
  for (const double w : real) sum += w;
  if (sum <= 0) sum = 1;  // one pixel at the very foot: it gets what is left, which is all
  int left = Taps::kWhole;
  std::size_t largest = 0;
  for (std::size_t k = 0; k < real.size(); ++k) {
    const int weight = static_cast<int>(std::lround(real[k] / sum * Taps::kWhole));
    whole[k] = static_cast<std::int16_t>(weight);
    left -= weight;
    if (real[k] > real[largest]) largest = k;
  }
  whole[largest] = static_cast<std::int16_t>(whole[largest] + left);
}

#if defined(__x86_64__)

// Two rows at a time: bytes of both side by side, widened to 16 bits, times both weights.
__attribute__((target("avx2"))) void blend_rows_avx2(const std::uint8_t* const* rows,
                                                     const std::int16_t* weights, int taps,
                                                     std::uint8_t* out, std::size_t bytes) {
  const __m256i zero = _mm256_setzero_si256();
  for (std::size_t i = 0; i < bytes; i += 32) {
    __m256i sum[4];
    for (__m256i& s : sum) s = _mm256_set1_epi32(kHalf);
    for (int k = 0; k < taps; k += 2) {
      std::int32_t pair = 0;
      std::memcpy(&pair, weights + k, sizeof(pair));
      const __m256i w = _mm256_set1_epi32(pair);
      const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[k] + i));
      const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[k + 1] + i));
      const __m256i low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
      const auto add = [&](int n, __m256i words) __attribute__((target("avx2"))) {
        sum[n] = _mm256_add_epi32(sum[n], _mm256_madd_epi16(words, w));
      };
      add(0, _mm256_unpacklo_epi8(low, zero));
      add(1, _mm256_unpackhi_epi8(low, zero));
      add(2, _mm256_unpacklo_epi8(high, zero));
      add(3, _mm256_unpackhi_epi8(high, zero));
    }
    for (__m256i& s : sum) s = _mm256_srai_epi32(s, Taps::kBits);
    const __m256i bytes_out =
        _mm256_packus_epi16(_mm256_packs_epi32(sum[0], sum[1]), _mm256_packs_epi32(sum[2], sum[3]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), bytes_out);
  }
}

// Each channel's two neighbours side by side, times both weights; two output pixels at a time.
__attribute__((target("avx2"))) inline __m256i two_pixels(const std::uint8_t* a,
                                                          const std::uint8_t* b,
                                                          const std::int16_t* weights_a,
                                                          const std::int16_t* weights_b, int taps) {
  const __m256i pairs = _mm256_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1,  //
                                         0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1);
  __m256i sum = _mm256_set1_epi32(kHalf);
  for (int k = 0; k < taps; k += 2) {
    std::int32_t pair_a = 0, pair_b = 0;
    std::memcpy(&pair_a, weights_a + k, sizeof(pair_a));
    std::memcpy(&pair_b, weights_b + k, sizeof(pair_b));
    const __m256i weights = _mm256_set_m128i(_mm_set1_epi32(pair_b), _mm_set1_epi32(pair_a));
    const __m256i pixels =
        _mm256_set_m128i(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(b + k * 4)),
                         _mm_loadl_epi64(reinterpret_cast<const __m128i*>(a + k * 4)));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_shuffle_epi8(pixels, pairs), weights));
  }
  return _mm256_srai_epi32(sum, Taps::kBits);
}

__attribute__((target("avx2"))) void blend_pixels_avx2(const std::uint8_t* row, const Taps& taps,
                                                       std::uint8_t* out) {
  const auto source = [&](int x) {
    return row + static_cast<std::ptrdiff_t>(taps.first[static_cast<std::size_t>(x)]) * 4;
  };
  int x = 0;
  // Four pixels are twelve bytes, written as sixteen: not at the end of the row.
  for (; x + 6 <= taps.outputs; x += 4) {
    const __m256i a = two_pixels(source(x), source(x + 1), taps.of(x), taps.of(x + 1), taps.most);
    const __m256i b =
        two_pixels(source(x + 2), source(x + 3), taps.of(x + 2), taps.of(x + 3), taps.most);
    // Lanes: pixels x and x + 2, then x + 1 and x + 3, each in 16 bits a channel.
    const __m256i words = _mm256_packs_epi32(a, b);
    const __m128i bytes =
        _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    const __m128i order = _mm_setr_epi8(0, 1, 2, 8, 9, 10, 4, 5, 6, 12, 13, 14, -1, -1, -1, -1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + static_cast<std::ptrdiff_t>(x) * 3),
                     _mm_shuffle_epi8(bytes, order));
  }
  for (; x < taps.outputs; ++x) {
    const __m256i one = two_pixels(source(x), source(x), taps.of(x), taps.of(x), taps.most);
    const __m128i words = _mm256_castsi256_si128(_mm256_packs_epi32(one, one));
    const int pixel = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    std::memcpy(out + static_cast<std::ptrdiff_t>(x) * 3, &pixel, 3);
  }
}

bool has_avx2() {
  static const bool has = __builtin_cpu_supports("avx2") != 0;
  return has;
}

#endif

}  // namespace

void make_taps(double from, double length, int size, int outputs, bool mirrored, Taps& taps) {
  const double step = length / outputs;
  const double reach = std::max(step, 1.0);  // half of the triangle's foot
  const int least = std::max(0, static_cast<int>(std::floor(from)));
  const int most = std::min(size, static_cast<int>(std::ceil(from + length)));
  struct Span {
    int begin, end;
  };
  const auto span_of = [&](double centre) {
    const int begin = std::clamp(static_cast<int>(centre - reach + 0.5), least, most - 1);
    return Span{begin, std::clamp(static_cast<int>(centre + reach + 0.5), begin + 1, most)};
  };
  int widest = 1;
  for (int i = 0; i < outputs; ++i) {
    const Span span = span_of(from + (i + 0.5) * step);
    widest = std::max(widest, span.end - span.begin);
  }
  taps.outputs = outputs;
  taps.most = widest + widest % 2;
  taps.first.assign(static_cast<std::size_t>(outputs), 0);
  taps.weights.assign(static_cast<std::size_t>(outputs) * static_cast<std::size_t>(taps.most), 0);
  std::vector<double> real;
  for (int i = 0; i < outputs; ++i) {
    const double centre = from + (i + 0.5) * step;
    const Span span = span_of(centre);
    real.clear();
    for (int p = span.begin; p < span.end; ++p) {
      real.push_back(std::max(0.0, 1.0 - std::abs(p + 0.5 - centre) / reach));
    }
    const std::size_t place = static_cast<std::size_t>(mirrored ? outputs - 1 - i : i);
    taps.first[place] = span.begin;
    write_weights(real, taps.weights.data() + place * static_cast<std::size_t>(taps.most));
  }
}

void blend_rows_plain(const std::uint8_t* const* rows, const std::int16_t* weights, int taps,
                      std::uint8_t* out, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) {
    std::int32_t sum = 0;
    for (int k = 0; k < taps; ++k) sum += weights[k] * rows[k][i];
    out[i] = rounded(sum);
  }
}

void blend_pixels_plain(const std::uint8_t* row, const Taps& taps, std::uint8_t* out) {
  for (int x = 0; x < taps.outputs; ++x) {
    const std::uint8_t* source = row + static_cast<std::ptrdiff_t>(taps.first[std::size_t(x)]) * 4;
    const std::int16_t* weights = taps.of(x);
    for (int c = 0; c < 3; ++c) {
      std::int32_t sum = 0;
      for (int k = 0; k < taps.most; ++k) {
        if (weights[k] != 0) sum += weights[k] * source[k * 4 + c];
      }
      out[x * 3 + c] = rounded(sum);
    }
  }
}

void blend_rows(const std::uint8_t* const* rows, const std::int16_t* weights, int taps,
                std::uint8_t* out, std::size_t bytes) {
#if defined(__x86_64__)
  if (has_avx2()) return blend_rows_avx2(rows, weights, taps, out, bytes);
#endif
  blend_rows_plain(rows, weights, taps, out, bytes);
}

void blend_pixels(const std::uint8_t* row, const Taps& taps, std::uint8_t* out) {
#if defined(__x86_64__)
  if (has_avx2()) return blend_pixels_avx2(row, taps, out);
#endif
  blend_pixels_plain(row, taps, out);
}

}  // namespace steelyard::rehearse
