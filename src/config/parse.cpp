#include "config/parse.hpp"

#include <algorithm>
#include <boost/program_options.hpp>
#include <set>
#include <span>

#include "base/error.hpp"
#include "config/nearest_match.hpp"
#include "config/option_lookup.hpp"

namespace red::config {
namespace {

namespace po = boost::program_options;

/// Everything one source of values says, in the source's order.
using Entries = std::vector<IniEntry>;

/// All values, in order of rising precedence, and the sources in the order in which they are first named.
struct Layers {
  std::vector<Entries> entries;
  std::vector<std::string> source_names;
};

/// Mistakes found so far; they are thrown together.
class Complaints {
 public:
  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    ++count_;
    if (count_ <= kMost)
      text_ += (text_.empty() ? "" : "\n") + fmt::format(format, std::forward<Args>(args)...);
  }
  void throw_if_any() const {
    if (count_ == 0) return;
    if (count_ <= kMost) throw ConfigError("{}", text_);
    throw ConfigError("{}\n... and {} more mistakes", text_, count_ - kMost);
  }

 private:
  static constexpr int kMost = 10;
  int count_ = 0;
  std::string text_;
};

/// Sections must be known even when they are empty. Takes out the keys of those that are not: one complaint
/// is enough.
void check_sections(IniFile& file, Complaints& complaints) {
  const std::vector<std::string> names = section_names();
  for (const IniSection& section : file.sections) {
    const std::string_view source = source_name(section.name);
    const bool is_source = !source.empty() && kSourcePrefix.size() + source.size() == section.name.size();
    const bool is_fixed = std::find(names.begin(), names.end(), section.name) != names.end();
    if (is_source || (is_fixed && section.name != "data.source.NAME")) continue;
    std::string hint = did_you_mean(section.name, names);
    if (section.name.starts_with("data.source") || section.name.starts_with("source"))
      hint = "; a source is [data.source.NAME], NAME without dots";
    complaints.add("{}: unknown section [{}]{}", section.place.to_string(), shown(section.name),
                   hint.empty() ? fmt::format("; sections are {}", joined(names)) : hint);
    std::erase_if(file.entries, [&](const IniEntry& e) { return e.name.starts_with(section.name + "."); });
  }
}

/// Keys must be known; unknown ones are reported and taken out.
void check_names(Entries& entries, Complaints& complaints) {
  std::erase_if(entries, [&](const IniEntry& entry) {
    if (is_key(entry.name)) return false;
    complaints.add("{}: {}", entry.place.to_string(), unknown_key(entry.name));
    return true;
  });
}

/// A source is described by the last file that has its section: what earlier files say about it is dropped.
void drop_replaced_sources(std::span<Entries> files) {
  std::set<std::string, std::less<>> described;
  for (auto file = files.rbegin(); file != files.rend(); ++file) {
    std::set<std::string, std::less<>> here;
    std::erase_if(*file, [&](const IniEntry& entry) {
      const std::string_view source = source_name(entry.name);
      if (source.empty()) return false;
      here.emplace(source);
      return described.contains(source);
    });
    described.merge(here);
  }
}

/// Names of all sources, in the order in which they are first named.
std::vector<std::string> source_order(const std::vector<Entries>& layers) {
  std::vector<std::string> order;
  for (const Entries& layer : layers) {
    for (const IniEntry& entry : layer) {
      const std::string name(source_name(entry.name));
      if (!name.empty() && std::find(order.begin(), order.end(), name) == order.end()) order.push_back(name);
    }
  }
  return order;
}

/// The last of several entries with one name; a command line may repeat itself.
Entries last_of_each(const Entries& entries) {
  Entries result;
  for (const IniEntry& entry : entries) {
    std::erase_if(result, [&](const IniEntry& earlier) { return earlier.name == entry.name; });
    result.push_back(entry);
  }
  return result;
}

/// Values by name, the highest layer's each, and where they came from.
struct Merged {
  po::variables_map values;
  std::map<std::string, Place, std::less<>> places;
};

/// Program_options keeps the first value that it is given, so the highest layer is stored first.
Merged merge(const Layers& layers) {
  po::options_description table;
  for (const RunOption& option : run_options())
    table.add_options()(option.name().c_str(), po::value<std::string>());
  for (const std::string& source : layers.source_names) {
    for (const SourceOption& option : source_options())
      table.add_options()((std::string(kSourcePrefix) + source + "." + option.key).c_str(),
                          po::value<std::string>());
  }
  Merged merged;
  for (auto layer = layers.entries.rbegin(); layer != layers.entries.rend(); ++layer) {
    po::parsed_options parsed(&table);
    for (const IniEntry& entry : *layer) {
      parsed.options.emplace_back(entry.name, std::vector<std::string>{entry.value});
      merged.places.emplace(entry.name, entry.place);
    }
    po::store(parsed, merged.values);
  }
  po::notify(merged.values);
  return merged;
}

/// Sets one field if the key was given.
template <class Config>
void assign(const Option<Config>& option, const std::string& name, Config& config, const Merged& merged,
            Complaints& complaints) {
  const auto value = merged.values.find(name);
  if (value == merged.values.end()) return;
  const std::string& text = value->second.as<std::string>();
  const std::string wrong = option.set(config, text);
  if (wrong.empty()) return;
  std::string hint;
  if (!option.choices.empty()) {
    hint = did_you_mean(text, option.choices);
  } else if (option.type != "name" && !option.range.empty() &&
             wrong.find(option.range) == std::string::npos) {
    hint = fmt::format("; {} takes {} {}, {}", option.key, option.type == "integer" ? "an" : "a", option.type,
                       option.range);
  }
  complaints.add("{}: {} = {}: {}{}", merged.places.find(name)->second.to_string(), name, shown(text), wrong,
                 hint);
}

Layers read_layers(const Sources& sources, Complaints& complaints) {
  std::vector<IniFile> files;
  if (sources.base) files.push_back(scan_ini(sources.base->first, sources.base->second));
  for (const auto& path : sources.files) {
    for (IniFile& file : read_ini(path)) files.push_back(std::move(file));
  }
  Layers layers;
  for (IniFile& file : files) {
    check_sections(file, complaints);
    layers.entries.push_back(std::move(file.entries));
  }
  Entries command_line;
  for (const auto& [name, value] : sources.overrides) command_line.push_back({name, value, {}});
  layers.entries.push_back(last_of_each(command_line));
  for (Entries& layer : layers.entries) check_names(layer, complaints);
  layers.source_names = source_order(layers.entries);
  drop_replaced_sources(std::span(layers.entries).first(files.size()));
  return layers;
}

}  // namespace

std::string Loaded::origin(std::string_view name) const {
  const auto place = places.find(name);
  return place == places.end() ? "default" : place->second.to_string();
}

Loaded load(const Sources& sources) {
  Complaints complaints;
  const Layers layers = read_layers(sources, complaints);
  Merged merged = merge(layers);
  Loaded loaded;
  for (const RunOption& option : run_options())
    assign(option, option.name(), loaded.config, merged, complaints);
  for (const std::string& source : layers.source_names) {
    data::SourceConfig& config = loaded.config.data.sources.emplace_back();
    config.name = source;
    for (const SourceOption& option : source_options())
      assign(option, std::string(kSourcePrefix) + source + "." + option.key, config, merged, complaints);
  }
  complaints.throw_if_any();
  // The recipe normalises attention's result in a RedLLM alone.
  if (loaded.config.model.kind == model::Kind::dec && !merged.places.contains("model.attention_output_norm"))
    loaded.config.model.attention_output_norm = model::AttentionOutputNorm::none;
  loaded.places = std::move(merged.places);
  return loaded;
}

}  // namespace red::config
