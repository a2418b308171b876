// quern serve: answers of a model over HTTP.
#include <algorithm>
#include <filesystem>
#include <map>
#include <thread>

#include "cli/chat_encoding.h"
#include "cli/command.h"
#include "cli/model_progress.h"
#include "cli/parse.h"
#include "cli/report.h"
#include "cli/serve/inherited_socket.h"
#include "cli/serve/served_models.h"
#include "cli/session_options.h"
#include "quant/checked_math.h"
#include "quant/format_size.h"
#include "quant/machine/memory.h"
#include "quant/machine/stop_signal.h"

namespace quern {
namespace {

constexpr size_t kUsualSlots = 8;

struct Options {
  std::string model;
  ChatArguments chat;
  SessionArguments session;
  GenerationArguments generation;
  SchedulerOptions scheduler{.slots = 0};
  HttpServerOptions http{.port = 8080};
  std::optional<std::string> key_file, admin_key_file;
  std::vector<std::string> others;  // NAME=PATH
  std::chrono::seconds idle{0};
  std::vector<std::string> aliases, host_names, allow_origins;
  CacheArguments cache;
  bool no_api_key = false;
  std::string pooling;                // empty: the file's
  std::optional<uint64_t> cache_ram;  // bytes
};

bool parse(std::span<const std::string> arguments, Options* options) {
  Arguments parser("serve",
                   "Answers requests of OpenAI's and Anthropic's protocols over HTTP, many at a time; an "
                   "answer depends on its request and seed alone, not on who else is being served. Ends when "
                   "a signal (Ctrl-C, SIGTERM) comes and the running answers are given; a second signal ends "
                   "it at once.",
                   "  quern serve model.gguf\n"
                   "  quern serve model.gguf --port 9000 --slots 4 --ctx 8k\n"
                   "  quern serve model.gguf --host 0.0.0.0 --api-key-file keys.txt");
  parser.positional("MODEL", "A GGUF file", &options->model);
  HttpServerOptions& http = options->http;
  parser.text("--host", "ADDRESS", "The IP address to listen on (default 127.0.0.1)", &http.address);
  parser.integer<uint16_t>("--port", "The port; 0 lets the system choose (default 8080)", 0, UINT16_MAX,
                           &http.port);
  parser.text("--unix", "PATH", "Listen on a Unix socket there instead, for this user alone",
              &http.unix_path);
  parser.text("--api-key-file", "FILE", "Ask for one of the keys in this file, a line each",
              &options->key_file);
  parser.texts("--other-model", "NAME=PATH",
               "Another GGUF file that may take the model's place (POST /models/load)", &options->others);
  parser.text("--admin-key-file", "FILE", "The keys of those who may exchange the model, a line each",
              &options->admin_key_file);
  parser.option("--idle-unload", "SECONDS",
                "Give the memory back after so long without a request; the next one loads the model again",
                [options](std::string_view name, const std::string& text) {
                  options->idle = std::chrono::seconds(parse_unsigned(name, text, 1, 1u << 30));
                });
  parser.flag("--no-api-key", "Listen on an address that others reach without keys", &options->no_api_key);
  parser.texts("--host-name", "NAME",
               "A name that requests may call the server by, beside its address and localhost",
               &options->host_names);
  parser.texts("--allow-origin", "ORIGIN", "Pages of this origin may ask (https://example.org)",
               &options->allow_origins);
  parser.texts("--alias", "NAME",
               "A name of the model; the first is the one in answers (default: the file's)",
               &options->aliases);
  parser.choice(
      "--pooling",
      "How the states of a text's tokens become its embedding (default: as the file says, else mean)",
      {"mean", "last"}, &options->pooling);
  SchedulerOptions& scheduler = options->scheduler;
  parser.integer<size_t>("--slots", "Answers at a time (default: 8, fewer where memory has no room)", 1,
                         Scheduler::kMaxSlots, &scheduler.slots);
  parser.integer<size_t>(
      "--prompt-budget",
      fmt::format("Tokens of new prompts in a step while answers run (default {})", scheduler.prompt_budget),
      1, Engine::kMicroBatch, &scheduler.prompt_budget);
  parser.integer<size_t>("--queue",
                         fmt::format("Requests that may wait for a slot (default {})", scheduler.queue), 0,
                         1 << 16, &scheduler.queue);
  parser.option(
      "--cache-ram", "SIZE",
      "Memory for what prompts and answers came to (500M, 2GiB, 0), in blocks of 512 tokens: a prompt "
      "that begins like one before reads only the rest (default: half of what models and slots leave)",
      [options](std::string_view name, const std::string& text) {
        constexpr uint64_t kLeast = 1 << 20;
        options->cache_ram = text == "0" ? 0 : parse_bytes(name, text);
        if (options->cache_ram > 0u && options->cache_ram < kLeast)  // llama-server counts in MiB
          fail(ErrorCode::kUsage, "{}: {} bytes hold no block; expected at least 1MiB, as 500M or 2GiB, or 0",
               name, *options->cache_ram);
      });
  parser.flag("--cache-shared", "Keys are served from each other's prompts, too: times may tell of these",
              &scheduler.cache_shared);
  options->cache.declare(parser);
  parser.integer<size_t>("--connections",
                         fmt::format("Open connections at most (default {})", http.connections), 1, 1 << 16,
                         &http.connections);
  parser.integer<uint64_t>("--max-body", "Bytes of a request's body at most (default 8388608)", 1, 1u << 30,
                           &http.limits.body_bytes);
  options->chat.declare(parser);
  options->generation.generate.max_tokens = -1;
  options->generation.declare(parser,
                              "Tokens of an answer at most, of a conversation that does not say "
                              "(default -1: until it ends)");
  options->session.declare(parser);
  if (!parser.parse(arguments)) return false;
  options->chat.check();
  return true;
}

bool is_loopback(const std::string& address) {
  return address == "localhost" || address == "::1" || address.starts_with("127.");
}

// Slots and bytes of the prefix cache: as many as were asked for, or as memory has room for.
void plan_memory(const Options& options, const std::string& path,
                 const std::optional<std::string>& draft_path, ModelOptions* model,
                 SchedulerOptions* scheduler) {
  model->n_sequences = scheduler->slots != 0 ? scheduler->slots : kUsualSlots;
  const ModelSurvey survey = Model::survey(path, *model, [](std::string_view) {});
  uint64_t each = std::max<uint64_t>(survey.memory.kv, 1), total = survey.memory.total();
  uint64_t draft = 0;  // with one text
  if (draft_path) {
    ModelOptions of_draft = *model;
    of_draft.context = survey.context;
    const MemoryPlan plan = DraftModel::memory(*draft_path, of_draft);
    draft = plan.total();
    if (!checked_add(each, plan.kv, &each) || !checked_add(total, draft, &total)) total = UINT64_MAX;
  }
  const uint64_t left = survey.available_bytes - std::min(total, survey.available_bytes);
  if (scheduler->slots == 0) {
    const uint64_t most = 1 + left / 2 / each;  // half stays free
    scheduler->slots = static_cast<size_t>(std::min<uint64_t>(kUsualSlots, most));
    print_notice("slots: {} of {} positions, {} each (override: --slots)", scheduler->slots, survey.context,
                 format_size(each, SizeUnit::kMiB));
  }
  uint64_t more = 0;
  if (!checked_mul(scheduler->slots - 1, each, &more)) more = UINT64_MAX;
  if (survey.context >= Sequence::kBlock) {
    scheduler->cache.ram_bytes = options.cache_ram.value_or((left - std::min(left, more)) / 2);
    if (!options.cache_ram)
      print_notice("prefix cache: up to {} (override: --cache-ram)", format_size(scheduler->cache.ram_bytes));
  }
  if (!checked_add(more, draft, &more) ||
      !checked_add(more, options.cache_ram.value_or(0), &model->promised_bytes))
    model->promised_bytes = UINT64_MAX;
}

// Null where the model has no template: completions of texts are answered all the same.
std::unique_ptr<ChatEncoding> make_chat(const Options& options, const Model& model) {
  try {
    auto chat = std::make_unique<ChatEncoding>(options.chat, model.tokenizer(), "");
    if (!chat->choice().empty()) notice(chat->choice());
    return chat;
  } catch (const Error& error) {
    if (!options.chat.format.empty() || options.chat.template_file) throw;
    print_notice("warning: no conversations (/v1/chat/completions): {}", error.what());
    return nullptr;
  }
}

std::unique_ptr<ServedModel> load_served(const Options& options, const std::string& path,
                                         ServiceOptions service) {
  auto served = std::make_unique<ServedModel>();
  ModelOptions model_options = options.session.options();
  SchedulerOptions scheduler = options.scheduler;
  // The draft is the first model's own.
  const std::optional<std::string> draft_path =
      path == options.model ? options.generation.draft : std::nullopt;
  plan_memory(options, path, draft_path, &model_options, &scheduler);
  served->model = load_model(path, model_options);
  (void)served->model->tokenizer();  // throws where there is none
  served->chat = make_chat(options, *served->model);
  service.pooling =
      parse_pooling(options.pooling).value_or(pooling_of(served->model->gguf()).value_or(Pooling::kMean));
  scheduler.cache.folder = options.cache.folder;
  scheduler.cache.disk_bytes = options.cache.disk_bytes;
  scheduler.cache.notice = notice;
  scheduler.speculation = !options.generation.no_speculation;
  served->draft = load_draft(draft_path, model_options, *served->model);
  if (served->draft) scheduler.draft = &served->draft->model();
  served->scheduler = std::make_unique<Scheduler>(*served->model, scheduler);
  served->service =
      std::make_unique<Service>(*served->model, served->chat.get(), *served->scheduler, std::move(service));
  return served;
}

void add_model(const std::string& name, const std::string& path, std::vector<std::string>* names,
               std::map<std::string, std::string>* paths) {
  if (!paths->emplace(name, path).second)
    fail(ErrorCode::kUsage, "--other-model: the name '{}' is taken", printable(name));
  names->push_back(name);
}

void wait_until_idle(const ServedModels& models) {
  while (!models.idle()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

}  // namespace

int run_serve(std::span<const std::string> arguments) {
  Options options;
  if (!parse(arguments, &options)) return 0;
  // Bodies of requests: each connection's thread has a heap of its own, in which they would stay (30 bodies
  // of 100 MB that were refused beyond their first 8 MB left 220 MiB).
  give_back_large_blocks();
  require_model_path(options.model);
  const std::optional<InheritedSocket> inherited = take_inherited_socket();
  if (inherited) {
    options.http.inherited = inherited->fd;
    options.http.address = inherited->address;
    options.http.port = inherited->port;
    options.http.unix_path.clear();
  }
  // Whom a connection cannot come from over the network.
  const bool is_unix = inherited ? inherited->address.empty() : !options.http.unix_path.empty();
  ServiceOptions service_options;
  AccessOptions& access = service_options.access;
  if (!is_unix) access.address = options.http.address;
  access.host_names = options.host_names;
  access.allow_origins = options.allow_origins;
  if (options.key_file) access.keys = read_key_file("--api-key-file", *options.key_file);
  if (!is_unix && !is_loopback(options.http.address) && access.keys.empty() && !options.no_api_key)
    fail(ErrorCode::kUsage, "--host {}: others could ask; give --api-key-file FILE, or --no-api-key",
         printable(options.http.address));

  ServedModelsOptions models_options{.names = {}, .idle = options.idle, .admin_keys = {}, .access = access};
  std::map<std::string, std::string> paths;
  const std::string own_name = options.aliases.empty() ? std::filesystem::path(options.model).stem().string()
                                                       : options.aliases.front();
  add_model(own_name, options.model, &models_options.names, &paths);
  for (const std::string& other : options.others) {
    const size_t equals = other.find('=');
    if (equals == 0 || equals == other.npos || equals + 1 == other.size())
      fail(ErrorCode::kUsage, "--other-model: expected NAME=PATH, found '{}'", printable(other, kPathBytes));
    const std::string path = other.substr(equals + 1);
    (void)Model::check(path, options.session.options());  // now, not when somebody asks
    const std::string name = other.substr(0, equals);
    if (std::find(options.aliases.begin(), options.aliases.end(), name) != options.aliases.end())
      fail(ErrorCode::kUsage, "--other-model: the name '{}' is taken (--alias)", printable(name));
    add_model(name, path, &models_options.names, &paths);
  }
  if (options.admin_key_file)
    models_options.admin_keys = read_key_file("--admin-key-file", *options.admin_key_file);
  else if (!options.others.empty())
    fail(ErrorCode::kUsage, "--other-model: nobody could load it; give --admin-key-file FILE");
  service_options.defaults = options.generation.unseeded();
  service_options.seed = options.generation.seed;

  // It listens before a model is loaded, which may take long: who cannot have the port hears of it at once,
  // and clients that come meanwhile wait for run().
  std::optional<ServedModels> models;
  HttpServer server(
      options.http,
      [&](const HttpRequest& request, HttpClient& client) { return models->handle(request, client); },
      Service::refusal);
  models.emplace(std::move(models_options), [&](const std::string& name) {
    ServiceOptions of_model = service_options;
    of_model.names = name == own_name && !options.aliases.empty() ? options.aliases : std::vector{name};
    return load_served(options, paths.at(name), std::move(of_model));
  });
  const StopScope stop;
  if (!is_unix)
    print_notice("listening on http://{}:{}",
                 options.http.address.find(':') == std::string::npos ? options.http.address
                                                                     : '[' + options.http.address + ']',
                 server.port());
  else if (inherited)
    print_notice("listening on the unix socket that was handed over (LISTEN_FDS)");
  else
    print_notice("listening on unix:{}", printable(options.http.unix_path, kPathBytes));
  server.run([&] {
    models->give_back_idle();
    return stop.requested();
  });
  server.drain();
  if (!models->idle()) notice("waiting for the running answers; a second signal ends them");
  wait_until_idle(*models);
  return 0;
}

}  // namespace quern
