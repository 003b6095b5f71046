// A source of samples: what one set of token files holds, as items that are numbered from 0 (windows, pairs).
// Providers decide which item a sample is (data/source_provider.hpp).
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "data/sample.hpp"
#include "data/token_stream.hpp"

namespace red::data {

class ItemSource {
 public:
  ItemSource(std::string name, TokenStream stream) : name_(std::move(name)), stream_(std::move(stream)) {}
  virtual ~ItemSource() = default;
  ItemSource(const ItemSource&) = delete;
  ItemSource& operator=(const ItemSource&) = delete;

  const std::string& name() const { return name_; }
  const TokenStream& stream() const { return stream_; }
  virtual int64_t num_items() const = 0;
  /// Everything of the sample but its id and its source. Throws DataError when the item cannot be one.
  virtual void cut(int64_t item, Sample& sample) const = 0;
  /// The documents that the item is cut from, first and last, counted from 0.
  virtual std::pair<int64_t, int64_t> documents(int64_t item) const = 0;
  /// How many items, and what of the files is left out, for the log.
  virtual std::string describe() const = 0;

 private:
  std::string name_;
  TokenStream stream_;
};

}  // namespace red::data
