#include "integration/bad_input.hpp"

namespace red::test {
namespace {

const std::vector<std::string> kShow = {"config", "show", "--config", "x.ini"};

/// One file, x.ini, and what must be said about it.
BadInput file(std::string name, std::string text, std::vector<std::string> message) {
  return {std::move(name), {{"x.ini", std::move(text)}}, kShow, std::move(message)};
}

/// A command line alone.
BadInput line(std::string name, std::vector<std::string> args, std::vector<std::string> message) {
  return {std::move(name), {}, std::move(args), std::move(message)};
}

/// A model and a recipe that would train, with something changed.
BadInput training(std::string name, const std::vector<std::string>& changes,
                  std::vector<std::string> message) {
  std::vector<std::string> args = {"config",
                                   "show",
                                   "--for=train",
                                   "--config={configs}/models/red_8b.ini",
                                   "--config={configs}/pretrain.ini",
                                   "--config=data.ini"};
  args.insert(args.end(), changes.begin(), changes.end());
  return {std::move(name),
          {{"data.ini",
            "[train]\nrun_dir = run\n[data]\ntokenizer = t.model\n[data.source.wiki]\ntokens = wiki\n"}},
          std::move(args),
          std::move(message)};
}
BadInput training(std::string name, const std::string& change, std::vector<std::string> message) {
  return training(std::move(name), std::vector<std::string>{change}, std::move(message));
}

std::vector<BadInput> wrong_names() {
  return {
      file("UnknownKey", "[model]\n\nd_modle = 4\n",
           {"x.ini:3: unknown key 'model.d_modle'", "did you mean 'model.d_model'?"}),
      file("UnknownSection", "[modell]\nd_model = 4\n",
           {"x.ini:1: unknown section [modell]", "did you mean 'model'?"}),
      file("KeyOfAnotherSection", "[optimizer]\nz_loss = 0\n", {"x.ini:2: ", "did you mean 'train.z_loss'?"}),
      file("KeyOfAnotherProject", "[train]\nlearning_rate = 0.1\n",
           {"x.ini:2: ", "did you mean 'schedule.peak'?"}),
      file("KeyWithoutSection", "micro_batch = 1\n", {"x.ini:1: ", "did you mean 'train.micro_batch'?"}),
      file("UnknownKeyOfASource", "[data.source.wiki]\nwieght = 1\n",
           {"x.ini:2: ", "did you mean 'data.source.wiki.weight'?"}),
      file("SeveralMistakesAtOnce", "[train]\nstpes = 1\nthreads = -1\n",
           {"x.ini:2: unknown key 'train.stpes'",
            "x.ini:3: train.threads = -1: is out of range: allowed is 0 to 4096"}),
      line("NcclOnCpus",
           {"bench", "step", "--config={configs}/bench/red_tiny.ini", "--parallel.transport=nccl"},
           {"parallel.transport = nccl: this program computes on CPUs"}),
      line("UnknownCommand", {"confg"}, {"'confg' is no command of redllm", "did you mean 'config'?"}),
      line("UnknownSubcommand", {"config", "shwo"},
           {"'shwo' is no command of redllm config", "did you mean 'show'?"}),
      line("NoCommand", {}, {"redllm needs a command", "usage: redllm COMMAND"}),
      line("UnknownOption", {"config", "show", "--confgi=x"},
           {"unknown option '--confgi'", "did you mean '--config'?"}),
      line("UnknownKeyOnTheCommandLine", {"config", "show", "--train.step=3"},
           {"command line: unknown key 'train.step'", "did you mean 'train.steps'?"}),
      line("OptionWithoutValue", {"config", "show", "--config"},
           {"'--config' is missing", "redllm config show --help"}),
      line("WordTooMany", {"config", "show", "x.ini"},
           {"'x.ini' is one word too many", "usage: redllm config show"}),
  };
}

std::vector<BadInput> wrong_values() {
  return {
      file("NoNumber", "[model]\nd_model = wide\n",
           {"x.ini:2: model.d_model = wide: is not a whole number", "1 to 1048576"}),
      file("Fraction", "[train]\nsteps = 1.5\n", {"x.ini:2: train.steps = 1.5: is not a whole number"}),
      file("OutOfRange", "[model]\nd_model = 0\n",
           {"x.ini:2: model.d_model = 0: is out of range: allowed is 1 to 1048576"}),
      file("TooLargeForAnyNumber", "[data]\nseed = 99999999999999999999\n",
           {"x.ini:2: data.seed = 99999999999999999999: is too large"}),
      file("NotFinite", "[schedule]\npeak = inf\n", {"x.ini:2: schedule.peak = inf: is not a finite number"}),
      file("NoChoice", "[schedule]\nkind = cosin\n",
           {"x.ini:2: ", "is none of cosine | constant", "did you mean 'cosine'?"}),
      file("NoScheduleOfThatName", "[parallel]\nschedule = gpipe\n",
           {"x.ini:2: parallel.schedule = gpipe: is none of 1f1b | zb_h1 | interleaved"}),
      file("NeitherYesNorNo", "[optimizer]\nfactored = perhaps\n", {"x.ini:2: ", "is neither yes nor no"}),
      file("EmptyValue", "[train]\nsteps =\n", {"x.ini:2: train.steps = : is not a whole number"}),
      line("BadValueOnTheCommandLine", {"config", "show", "--train.steps=ten"},
           {"command line: train.steps = ten: is not a whole number"}),
      line("BenchmarkOfOneNewToken",
           {"bench", "generate", "--config", "{configs}/models/red_8b.ini", "--new-tokens", "1"},
           {"--new-tokens", "'1'", "2 to "}),
      line("BenchmarkOfNoModel", {"bench", "generate"}, {"not given, and without a default: model.d_model"}),
      line("BadUse", {"config", "show", "--for=trian"},
           {"--for=trian is none of train, bench, model", "did you mean 'train'?"}),
  };
}

std::vector<BadInput> wrong_files() {
  return {
      line("MissingFile", kShow, {"command line: --config x.ini: there is no such file"}),
      {"MissingFileWithANeighbour",
       {{"red_tiny.ini", ""}},
       {"config", "show", "--config=red_tniy.ini"},
       {"did you mean 'red_tiny.ini'?"}},
      {"FolderAsFile", {{"x.ini/", ""}}, kShow, {"--config x.ini: this is a folder"}},
      line("DeviceAsFile", {"config", "show", "--config=/dev/zero"}, {"/dev/zero: this is no regular file"}),
      file("BinaryFile", std::string("\x89HDF\r\n\x1a\n\0\0", 10),
           {"x.ini:2: byte 0x1a", "is this a configuration file?"}),
      file("NulByte", std::string("[train]\nsteps = 1\0\n", 19), {"x.ini:2: byte 0x00"}),
      file("OverlongLine", "[train]\nrun_dir = " + std::string(100000, 'x'),
           {"x.ini:2: the line has 100010 bytes"}),
      file("OverlongFile", std::string(3 << 20, '\n'), {"--config x.ini: larger than 1 MiB"}),
      file("KeyTwice", "[train]\nsteps = 1\n\nsteps = 2\n",
           {"x.ini:4: train.steps is already set in line 2"}),
      file("NoKeyValue", "[train]\nsteps 1\n", {"x.ini:2: 'steps 1' is neither 'key = value' nor"}),
      file("OpenSection", "[train\nsteps = 1\n",
           {"x.ini:1: '[train' opens a section but does not end with ']'"}),
      file("OpenQuote", "[train]\nrun_dir = \"a\n", {"x.ini:2: the value has no closing quote"}),
      file("IncludeOfNothing", "include = gone.ini\n",
           {"x.ini:1: include = gone.ini: there is no such file"}),
      file("IncludeOfItself", "include = x.ini\n",
           {"x.ini:1: include = x.ini: files include each other in a circle: x.ini -> x.ini"}),
      {"MistakeInAnInclude",
       {{"x.ini", "include = sub/y.ini\n"}, {"sub/y.ini", "[train]\nstpes = 1\n"}},
       kShow,
       {"sub/y.ini:2: unknown key 'train.stpes'"}},
  };
}

std::vector<BadInput> contradictions() {
  return {
      line("NothingGiven", {"config", "show", "--for=train"},
           {"not given, and without a default: model.d_model", "train.run_dir",
            "--config configs/models/red_150m.ini"}),
      training("BatchDoesNotDivide", "--train.micro_batch=3",
               {"pretrain.ini:", "not a multiple of train.micro_batch = 3 (command line)",
                "2046 or 2049 would do"}),
      training("OddWindow", "--data.window=2047", {"command line: data.window = 2047: it must be even"}),
      training("WarmupLongerThanRun", "--train.steps=1000",
               {"schedule.warmup_steps = 2000 (", "pretrain.ini:", "100 would do"}),
      training("CosineEndsBeforeTheRun", "--schedule.total_steps=10000",
               {"the cosine ends before train.steps = 400000"}),
      training("OddHead", "--model.head_dim=127", {"command line: model.head_dim = 127: must be even"}),
      training("EncoderInADecLLM", "--model.kind=dec",
               {"models/red_8b.ini:", "model.encoder_layers = 14: a DecLLM"}),
      training("BiAttnInARedLLM", "--data.bidirectional_input=yes",
               {"a RedLLM's encoder is bidirectional anyway"}),
      training("DocumentMaskOfPairs",
               std::vector<std::string>{"--data.samples=pairs", "--data.document_mask=yes"},
               {"command line: data.document_mask = yes: a pair is one document"}),
      training("EodAddedToPairs", std::vector<std::string>{"--data.samples=pairs", "--data.missing_eod=add"},
               {"command line: data.missing_eod = add: pairs are built with [EOD]"}),
      training(
          "MoreStagesThanLayers", "--parallel.encoder_stages=15",
          {"parallel.encoder_stages = 15: each stage needs a layer, and model.encoder_layers = 14; nearest"}),
      training("MoreTensorRanksThanHeads", "--parallel.tensor=33",
               {"parallel.tensor = 33: each tensor rank needs a head, and model.num_heads = 32"}),
      training("ChunksWithoutTheirSchedule", "--parallel.virtual_stages=2",
               {"parallel.virtual_stages = 2 (command line): only with parallel.schedule = interleaved, and "
                "parallel.schedule = 1f1b"}),
      training(
          "NothingToInterleave", "--parallel.schedule=interleaved",
          {"parallel.schedule = interleaved (command line): there is nothing to interleave on one stage"}),
      training("SplitOfNoStages", "--parallel.encoder_split=7,7",
               {"command line: parallel.encoder_split = 7,7: there are no stages of the encoder alone"}),
      training("SplitThatIsNoList", "--parallel.decoder_split=7,,7",
               {"command line: parallel.decoder_split = 7,,7", "has a part '' that is not a whole number"}),
      training("RecomputationUnderZeroBubble",
               std::vector<std::string>{"--train.recompute=full", "--parallel.schedule=zb_h1"},
               {"train.recompute = full (command line): parallel.schedule = zb_h1 (command line) keeps"}),
      training("LayersOfNoRecomputation", "--train.recompute_layers=2",
               {"train.recompute_layers = 2 (command line): needs train.recompute = none (default)"}),
      training("ValidationWithoutHeldOutText", "--train.validate_every=100",
               {"train.validate_every = 100 (command line): no source has held-out token files",
                "--data.source.wiki.held_out=PREFIX"}),
      training("SourceWithoutTokens", "--data.source.books.weight=2",
               {"[data.source.books] names no tokens"}),
      training("TinyShare", "--data.source.wiki.weight=0",
               {"command line: data.source.wiki.weight = 0: is out of range"}),
  };
}

}  // namespace

std::vector<BadInput> bad_configurations() {
  std::vector<BadInput> all;
  for (const auto& group : {wrong_names(), wrong_values(), wrong_files(), contradictions()})
    all.insert(all.end(), group.begin(), group.end());
  return all;
}

}  // namespace red::test
