#include "cli/timeline_file.h"

#include <unistd.h>
#include <zlib.h>

#include <filesystem>
#include <fstream>

#include "base/text.h"
#include "report/report.h"

namespace steelyard::cli {
namespace {

// gzip's own frame: 15 bits of window, plus 16 (zlib.h, deflateInit2).
Result<std::string> gzipped(const std::string& text) {
  constexpr int kGzip = 15 + 16, kMemory = 8;
  z_stream stream{};
  const auto refused = [] {
    return fail({.code = ErrorCode::internal, .subject = "zlib could not compress the timeline"});
  };
  if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kGzip, kMemory,
                   Z_DEFAULT_STRATEGY) != Z_OK) {
    return refused();
  }
  std::string out(deflateBound(&stream, text.size()), '\0');
  // zlib reads only, but its pointers are not const.
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int ended = deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  if (ended != Z_STREAM_END) return refused();
  return out;
}

Error unwritable(const std::string& file) {
  return {.code = ErrorCode::unreadable,
          .subject = "--timeline",
          .found = "\"" + printable(file) + "\", which cannot be written",
          .accepted = "a file in a folder that exists and may be written to"};
}

Result<void> write_whole(const std::string& file, const std::string& text) {
  const std::string fresh = file + "." + std::to_string(::getpid()) + ".part";
  std::error_code failed;
  {
    std::ofstream out(fresh, std::ios::binary);
    out << text;
    out.flush();
    if (!out) {
      std::filesystem::remove(fresh, failed);
      return fail(unwritable(file));
    }
  }
  std::filesystem::rename(fresh, file, failed);
  if (!failed) return {};
  std::filesystem::remove(fresh, failed);
  return fail(unwritable(file));
}

// `plan --timeline job.json` means the job, not the file to write over.
bool holds_other_json(const std::string& file) {
  constexpr std::size_t kHead = 1024;  // a trace says what it is in its first lines
  std::ifstream in(file, std::ios::binary);
  std::string head(kHead, '\0');
  in.read(head.data(), static_cast<std::streamsize>(head.size()));
  head.resize(static_cast<std::size_t>(in.gcount()));
  return !head.empty() && head.find("\"traceEvents\"") == std::string::npos;
}

Result<void> write_json(const std::string& file, const std::string& text) {
  if (file.ends_with(".json")) return write_whole(file, text);
  STEELYARD_TRY(packed, gzipped(text));
  return write_whole(file, packed);
}

}  // namespace

Result<void> check_timeline_file(const std::string& file) {
  if (file.ends_with(".json") && holds_other_json(file)) {
    return fail({.code = ErrorCode::bad_input,
                 .subject = "--timeline",
                 .found = "\"" + printable(file) + "\", which exists and is no trace",
                 .accepted = "a new file, or a trace to write anew",
                 .hint = "the job file stands before --timeline"});
  }
  if (file.empty() || file.ends_with(".html") || file.ends_with(".json") ||
      file.ends_with(".json.gz")) {
    return {};
  }
  return fail({.code = ErrorCode::bad_input,
               .subject = "--timeline",
               .found = "\"" + printable(file) + "\"",
               .accepted = "a file that ends in .html, .json or .json.gz",
               .hint = "the job file stands before --timeline"});
}

Result<void> write_timeline(const facts::Plan& plan, const std::string& file) {
  if (file.empty()) return {};
  if (file.ends_with(".html")) return write_whole(file, report::timeline_page(plan));
  return write_json(file, report::timeline_trace(plan));
}

Result<void> check_trace_file(const std::string& file) {
  if (!file.ends_with(".html")) return check_timeline_file(file);
  return fail({.code = ErrorCode::bad_input,
               .subject = "--timeline",
               .found = "\"" + printable(file) + "\"",
               .accepted = "a file that ends in .json or .json.gz",
               .hint = "open it in ui.perfetto.dev or chrome://tracing"});
}

Result<void> write_trace(const facts::PaceWhy& why, const std::string& file) {
  if (file.empty()) return {};
  return write_json(file, report::pace_trace(why));
}

}  // namespace steelyard::cli
