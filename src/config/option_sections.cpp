// Sections as a whole: in which order, and what each is about.
#include "config/option_table.hpp"

namespace red::config {

const std::vector<SectionInfo>& sections() {
  static const std::vector<SectionInfo> list = {
      {"model", "What the model is; configs/models/ has presets."},
      {"parallel", "How ranks divide the work: ranks = data x tensor x (encoder_stages + decoder_stages)."},
      {"train", "The run."},
      {"optimizer", "Adafactor."},
      {"schedule", "The learning rate."},
      {"data", "What is read, and how samples are cut."},
      {"data.source.NAME", "One corpus; NAME is yours. A later file that has the section replaces it whole."},
      {"checkpoint", "Saving and resuming."},
      {"bench", "Measuring."},
  };
  return list;
}

std::string_view source_name(std::string_view section_or_key) {
  if (!section_or_key.starts_with(kSourcePrefix)) return {};
  const std::string_view rest = section_or_key.substr(kSourcePrefix.size());
  return rest.substr(0, rest.find('.'));
}

}  // namespace red::config
