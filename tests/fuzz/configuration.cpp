// INI files and what they mean together.
#include "config/print.hpp"
#include "config/validate.hpp"
#include "fuzz/fuzz_target.hpp"

int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace red;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto load = [](const std::string& ini) {
    return config::load({.base = std::pair{ini, std::string("fuzz")}, .files = {}, .overrides = {}});
  };
  test::survive([&] { config::read_ini(test::fuzz_file("a.ini", text)); });
  std::optional<config::Loaded> loaded;
  test::survive([&] { loaded = load(text); });
  if (!loaded) return 0;
  load(config::print_effective(*loaded));  // what was read is printed so that it comes back
  test::survive([&] { config::validate(*loaded, config::kBenchUse); });
  return 0;
}
