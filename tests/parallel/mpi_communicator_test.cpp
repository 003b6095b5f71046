// Every operation of the communicator against sums done by hand in the order that its header promises, at
// sizes on both sides of every cut: odd, smaller than the ranks, longer than a segment, longer than a
// message.
#include "parallel/mpi_communicator.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/philox.hpp"
#include "parallel/mpi_environment.hpp"

namespace red::parallel {
namespace {

/// Numbers of very different size, so that another order of a sum gives other bits.
template <class T>
T value(int rank, int64_t i) {
  const PhiloxBlock bits = philox(rank + 1, i);
  const double x = (static_cast<double>(bits[0]) * 0x1.0p-31 - 1.0) * static_cast<double>(1 << bits[1] % 25);
  if constexpr (std::is_integral_v<T>) return static_cast<T>(static_cast<int64_t>(x) % 100000);
  return static_cast<T>(x);
}

/// What values are added up in.
template <class T>
using SumOf = std::conditional_t<std::is_same_v<T, bf16>, float, T>;

template <class T>
std::vector<T> values(int rank, int64_t begin, int64_t count) {
  std::vector<T> v(count);
  for (int64_t i = 0; i < count; ++i) v[i] = value<T>(rank, begin + i);
  return v;
}

template <class T>
Tensor as_tensor(std::vector<T>& v, int64_t rows = 1) {
  return make_tensor(v.data(), rows, static_cast<int64_t>(v.size()) / rows);
}

template <class T>
uint64_t digest(const std::vector<T>& v) {
  return hash_name({reinterpret_cast<const char*>(v.data()), v.size() * sizeof(T)});
}

/// True when every rank has the same number.
bool same_everywhere(Communicator& world, uint64_t number) {
  std::vector<int32_t> mine = {static_cast<int32_t>(number), static_cast<int32_t>(number >> 32)};
  std::vector<int32_t> all(2 * world.size());
  Request request = world.all_gather(as_tensor(all, world.size()), as_tensor(mine));
  world.wait(request, "digests");
  for (int r = 0; r < world.size(); ++r) {
    if (all[2 * r] != mine[0] || all[2 * r + 1] != mine[1]) return false;
  }
  return true;
}

/// Through shared memory and by messages: with the default limits, and with limits so small that everything
/// is cut many times.
std::vector<MpiOptions> all_options() {
  MpiOptions messages;
  messages.shared_memory = false;
  MpiOptions tiny = messages;
  tiny.max_elements = 7;
  MpiOptions short_segments = messages;
  short_segments.segment_bytes = 104;
  MpiOptions short_slots;
  short_slots.segment_bytes = 104;
  return {MpiOptions{}, messages, tiny, short_segments, short_slots};
}

class Operations : public testing::TestWithParam<int> {
 protected:
  Operations() : environment_(all_options()[GetParam()]), world_(environment_.world()) {}
  int rank() const { return world_.rank(); }
  int size() const { return world_.size(); }
  /// Long tensors only where they are not cut into thousands of pieces.
  std::vector<int64_t> sizes() const {
    if (GetParam() <= 1) return {0, 1, 2, 31, 1000, 65537, 500009};
    return {0, 1, 6, 7, 8, 31, 50, 1001};
  }

  template <class T>
  void check_all_reduce(ReduceOp op) {
    for (const int64_t n : sizes()) {
      std::vector<T> x = values<T>(rank(), 0, n);
      Request request = world_.all_reduce(as_tensor(x), op);
      world_.wait(request, "all-reduce");
      for (int64_t i = 0; i < n; i += 1 + n / 1000) {
        SumOf<T> expected = value<T>(0, i);
        for (int r = 1; r < size(); ++r) {
          const SumOf<T> v = value<T>(r, i);
          expected = op == ReduceOp::sum   ? expected + v
                     : op == ReduceOp::max ? std::max(expected, v)
                                           : std::min(expected, v);
        }
        EXPECT_EQ(x[i], T(expected)) << n << " " << i;  // the order of the sum is promised, so the bits are
      }
      EXPECT_TRUE(same_everywhere(world_, digest(x))) << "bits differ between ranks, n " << n;
    }
  }

  template <class T>
  void check_reduce_scatter() {
    for (const bool in_place : {false, true}) {
      for (const int64_t n : sizes()) {
        std::vector<T> send = values<T>(rank(), 0, n * size());
        std::vector<T> out(n, T(-1.0F));
        const Tensor all = as_tensor(send, size());
        const Tensor own = in_place ? all.row_range(rank(), 1) : as_tensor(out);
        Request request = world_.reduce_scatter(own, all);
        world_.wait(request, "reduce-scatter");
        int64_t wrong = 0;
        for (int64_t i = 0; i < n; ++i) {
          SumOf<T> sum = value<T>(0, rank() * n + i);
          for (int r = 1; r < size(); ++r) sum += value<T>(r, rank() * n + i);
          wrong += own.as<T>()[i] != T(sum);  // the order is fixed, so the bits are
        }
        EXPECT_EQ(wrong, 0) << n << (in_place ? " in place" : "");
      }
    }
  }

  template <class T>
  void check_all_gather() {
    for (const bool in_place : {false, true}) {
      for (const int64_t n : sizes()) {
        std::vector<T> send = values<T>(rank(), 0, n);
        std::vector<T> all(n * size(), T(-1.0F));
        const Tensor receive = as_tensor(all, size());
        if (in_place) std::copy(send.begin(), send.end(), all.begin() + rank() * n);
        Request request =
            world_.all_gather(receive, in_place ? receive.row_range(rank(), 1) : as_tensor(send));
        world_.wait(request, "all-gather");
        for (int r = 0; r < size(); ++r) {
          EXPECT_EQ(std::vector<T>(all.begin() + r * n, all.begin() + (r + 1) * n), values<T>(r, 0, n))
              << n << " from " << r;
        }
      }
    }
  }

  template <class T>
  void check_messages();

  MpiEnvironment environment_;
  Communicator& world_;
};

INSTANTIATE_TEST_SUITE_P(Limits, Operations, testing::Range(0, 5));

TEST_P(Operations, AllReduceByHand) {
  std::vector<float> x = {static_cast<float>(rank() + 1), -static_cast<float>(rank())};
  Request request = world_.all_reduce(as_tensor(x), ReduceOp::sum);
  world_.wait(request, "all-reduce by hand");
  EXPECT_EQ(x[0], 0.5F * static_cast<float>(size() * (size() + 1)));
  EXPECT_EQ(x[1], -0.5F * static_cast<float>(size() * (size() - 1)));
}

TEST_P(Operations, AllReduceEveryTypeAndOp) {
  for (const ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min}) {
    check_all_reduce<float>(op);
    check_all_reduce<double>(op);
    check_all_reduce<int32_t>(op);
    check_all_reduce<bf16>(op);
  }
}

TEST_P(Operations, NanWinsOnEveryRank) {
  for (const ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min}) {
    for (int owner = 0; owner < size(); ++owner) {
      std::vector<float> x = {rank() == owner ? std::nanf("") : static_cast<float>(rank()), 1.0F};
      Request request = world_.all_reduce(as_tensor(x), op);
      world_.wait(request, "all-reduce with NaN");
      EXPECT_TRUE(std::isnan(x[0]));
      EXPECT_FALSE(std::isnan(x[1]));
    }
  }
}

TEST_P(Operations, ReduceScatterSumsInTheOrderOfRanks) {
  check_reduce_scatter<float>();
  check_reduce_scatter<bf16>();
}

TEST_P(Operations, Bf16SumsAreRoundedOnce) {
  // 256 + 1 + 1 + ... in bf16 alone stays 256.
  std::vector<bf16> x(3, bf16(rank() == 0 ? 256.0F : 1.0F));
  Request request = world_.all_reduce(as_tensor(x), ReduceOp::sum);
  world_.wait(request, "all-reduce of bf16");
  for (const bf16 sum : x) EXPECT_EQ(sum, bf16(255.0F + static_cast<float>(size())));
}

TEST_P(Operations, AllGather) {
  check_all_gather<float>();
  check_all_gather<bf16>();
}

TEST_P(Operations, Broadcast) {
  for (int root = 0; root < size(); ++root) {
    for (const int64_t n : sizes()) {
      std::vector<double> x = values<double>(rank(), 0, n);
      Request request = world_.broadcast(as_tensor(x), root);
      world_.wait(request, "broadcast");
      EXPECT_EQ(x, values<double>(root, 0, n));
    }
  }
}

template <class T>
void Operations::check_messages() {
  const int next = (rank() + 1) % size(), previous = (rank() + size() - 1) % size();
  if (size() == 1) return;
  const std::vector<int64_t> lengths = sizes();
  std::vector<std::vector<T>> sent, received;
  std::vector<Request> requests;
  for (const int64_t n : lengths) {
    sent.push_back(values<T>(rank(), n, n));
    received.emplace_back(n, T(-1.0F));
  }
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    requests.push_back(world_.send(as_tensor(sent[i]), next, 5));
  }
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    requests.push_back(world_.receive(as_tensor(received[i]), previous, 5));
  }
  for (Request& request : requests) world_.wait(request, "messages around the ring");
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    EXPECT_EQ(received[i], values<T>(previous, lengths[i], lengths[i]));
  }
}

TEST_P(Operations, MessagesOfOneTagArriveInOrder) {
  check_messages<float>();
  check_messages<bf16>();
}

TEST_P(Operations, ManyAtOnceInAnyOrderOfWaits) {
  constexpr int num = 6;
  const int64_t n = sizes().back() / 3;
  std::vector<std::vector<float>> x(num);
  std::vector<Request> requests;
  for (int i = 0; i < num; ++i) {
    x[i] = values<float>(rank(), i, n);
    requests.push_back(world_.all_reduce(as_tensor(x[i]), ReduceOp::sum));
  }
  // Each rank waits in its own order.
  for (int i = 0; i < num; ++i)
    world_.wait(requests[(i * (rank() % 2 == 0 ? 1 : 5) + rank()) % num], "one of many");
  for (int i = 0; i < num; ++i) {
    std::vector<float> again = values<float>(rank(), i, n);
    Request request = world_.all_reduce(as_tensor(again), ReduceOp::sum);
    world_.wait(request, "the same alone");
    EXPECT_EQ(x[i], again) << "a sum depends on what runs beside it";
  }
}

TEST_P(Operations, TestAndPollFinishWithoutWait) {
  std::vector<float> x = values<float>(rank(), 0, sizes().back()), first;
  for (int r = 0; r < size(); ++r) first.push_back(value<float>(r, 0));
  Request request = world_.all_reduce(as_tensor(x), ReduceOp::max);
  while (!world_.test(request)) world_.poll();
  EXPECT_EQ(x[0], *std::max_element(first.begin(), first.end()));
  EXPECT_TRUE(world_.test(request));
  world_.wait(request, "already done");
  EXPECT_FALSE(request);
  world_.wait(request, "nothing");
}

TEST_P(Operations, BarrierHoldsUntilAllArrive) {
  const int last = size() - 1;
  std::vector<int32_t> word = {1};
  if (rank() != last) {
    Request barrier = world_.barrier();
    for (int i = 0; i < 100; ++i) EXPECT_FALSE(world_.test(barrier));
    Request told = world_.send(as_tensor(word), last, 9);
    world_.wait(told, "telling the last rank");
    world_.wait(barrier, "barrier");
  } else {
    for (int r = 0; r < last; ++r) {
      Request told = world_.receive(as_tensor(word), r, 9);
      world_.wait(told, "the others' word");
    }
    Request barrier = world_.barrier();
    world_.wait(barrier, "barrier");
  }
}

TEST_P(Operations, SplitByColourAndKey) {
  const std::unique_ptr<Communicator> half = world_.split(rank() % 2, -rank(), "half");
  const int members = (size() + 1 - rank() % 2) / 2;
  EXPECT_EQ(half->size(), members);
  EXPECT_EQ(half->rank(), members - 1 - rank() / 2);  // keys fall with the rank
  EXPECT_TRUE(half->name().starts_with("half (rank")) << half->name();
  std::vector<int32_t> x = {rank()};
  Request request = half->all_reduce(as_tensor(x), ReduceOp::sum);
  half->wait(request, "all-reduce in the half");
  int expected = 0;
  for (int r = rank() % 2; r < size(); r += 2) expected += r;
  EXPECT_EQ(x[0], expected);
}

TEST_P(Operations, WrongShapesAreRefused) {
  std::vector<float> x(4 * size()), y(3);
  std::vector<double> z(4);
  EXPECT_THROW((void)world_.reduce_scatter(as_tensor(y), as_tensor(x, size())), LogicError);
  EXPECT_THROW((void)world_.reduce_scatter(as_tensor(z), as_tensor(x, size())), LogicError);
  EXPECT_THROW((void)world_.all_gather(as_tensor(x, size()), as_tensor(y)), LogicError);
  EXPECT_THROW((void)world_.all_reduce(as_tensor(x, 2).col_range(0, 1), ReduceOp::sum), LogicError);
  EXPECT_THROW((void)world_.send(as_tensor(y), rank(), 0), LogicError);
  EXPECT_THROW((void)world_.send(as_tensor(y), size(), 0), LogicError);
  EXPECT_THROW((void)world_.broadcast(as_tensor(y), size()), LogicError);
  if (size() > 1) {
    const int other = rank() == 0 ? 1 : 0;
    EXPECT_THROW((void)world_.all_gather(as_tensor(x, size()), make_tensor(x.data() + 4 * other, 1, 4)),
                 LogicError)
        << "a send chunk in another rank's row would be overwritten";
  }
}

bool has_shared_memory(const Communicator& communicator) {
  return dynamic_cast<const MpiCommunicator&>(communicator).has_shared_memory();
}

TEST(Communicator, SharedMemoryAndMessagesGiveTheSameBits) {
  std::vector<uint64_t> digests;
  for (const bool shared : {true, false}) {
    MpiOptions options;
    options.shared_memory = shared;
    MpiEnvironment environment(options);
    EXPECT_EQ(has_shared_memory(environment.world()), shared && environment.size() > 1);
    std::vector<bf16> x = values<bf16>(environment.rank(), 0, 300007);
    Request request = environment.world().all_reduce(as_tensor(x), ReduceOp::sum);
    environment.world().wait(request, "all-reduce");
    digests.push_back(digest(x));
  }
  EXPECT_EQ(digests[0], digests[1]);
}

TEST(Communicator, OneRankWithoutSharedMemoryIsNoneForAll) {
  MpiEnvironment environment;
  Communicator& world = environment.world();
  rlimit before{};
  EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{.rlim_cur = 3, .rlim_max = before.rlim_max};  // what is open stays open
  if (world.rank() == world.size() - 1) {
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  }
  const std::unique_ptr<Communicator> apart = world.split(0, world.rank(), "apart");
  EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_FALSE(has_shared_memory(*apart));
  std::vector<float> x(100000, 1.0F);
  Request request = apart->all_reduce(as_tensor(x), ReduceOp::sum);
  apart->wait(request, "all-reduce by messages");
  EXPECT_EQ(x.back(), static_cast<float>(world.size()));
}

TEST(Communicator, ShortMessageIsAnError) {
  MpiEnvironment environment;
  Communicator& world = environment.world();
  if (world.size() < 2) return;
  std::vector<float> x(10);
  if (world.rank() == 0) {
    Request request = world.send(make_tensor(x.data(), 1, 9), 1, 3);
    world.wait(request, "short send");
  } else if (world.rank() == 1) {
    Request request = world.receive(as_tensor(x), 0, 3);
    try {
      world.wait(request, "receive");
      ADD_FAILURE() << "nine elements passed for ten";
    } catch (const LogicError& error) {
      EXPECT_NE(std::string(error.what()).find("9 elements came from rank 0 with tag 3, 10 were expected"),
                std::string::npos)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace red::parallel
