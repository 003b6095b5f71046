#include "data/compressed.hpp"

#include <zstd.h>

#include <boost/iostreams/filter/gzip.hpp>
#include <boost/iostreams/filtering_stream.hpp>
#include <sstream>

namespace red::data {

std::string gzip(const std::string& text) {
  std::ostringstream compressed;
  boost::iostreams::filtering_ostream out;
  out.push(boost::iostreams::gzip_compressor());
  out.push(compressed);
  out << text;
  out.reset();
  return compressed.str();
}

std::string zstd(const std::string& text) {
  std::string compressed(ZSTD_compressBound(text.size()), '\0');
  compressed.resize(ZSTD_compress(compressed.data(), compressed.size(), text.data(), text.size(), 3));
  return compressed;
}

}  // namespace red::data
