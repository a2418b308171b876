#include "cli/serve/served_models.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "cli/report.h"
#include "cli/serve/request_fields.h"
#include "quant/json/json_writer.h"

namespace quern {
namespace {

AccessOptions with_keys(AccessOptions access, std::vector<std::string> keys) {
  access.keys = std::move(keys);
  return access;
}

}  // namespace

ServedModels::ServedModels(ServedModelsOptions options, LoadFn load)
    : options_(std::move(options)),
      load_(std::move(load)),
      access_(options_.access),
      admin_(with_keys(options_.access, options_.admin_keys)),
      name_(options_.names.front()) {
  use(load_(name_));
}

// From now on it is the one that answers.
ServedModels::ModelPtr ServedModels::use(std::unique_ptr<ServedModel> model) {
  ModelPtr before;  // goes outside of the lock, where nobody else has it
  const std::lock_guard lock(mutex_);
  before = std::exchange(current_, ModelPtr(std::move(model)));
  std::erase_if(all_, [](const auto& one) { return one.expired(); });
  all_.push_back(current_);
  last_use_ = std::chrono::steady_clock::now();
  return current_;
}

ServedModels::ModelPtr ServedModels::current() const {
  const std::lock_guard lock(mutex_);
  return current_;
}

// One that is there meanwhile, or a new one.
ServedModels::ModelPtr ServedModels::load_current() {
  const std::lock_guard loading(loading_);
  if (ModelPtr model = current()) return model;
  try {
    return use(load_(name_));
  } catch (const Error& error) {
    // What is wrong with the server's files is no fault of the client's, nor its business.
    notice(fmt::format("warning: the model cannot be loaded again: {}", error.what()));
    throw ApiError(error.code() == ErrorCode::kResource ? 503 : 500, "server_error",
                   "the model cannot be loaded again; the server's own messages say why");
  }
}

HttpResponse ServedModels::handle(const HttpRequest& request, HttpClient& client) {
  bool by_service = false;
  HttpResponse response =
      Service::answer_or_error(request.path, [&] { return route(request, client, &by_service); });
  if (!by_service) access_.tell_origin(request, &response);
  return response;
}

// by_service: whether a model's service has answered, and told the origin.
HttpResponse ServedModels::route(const HttpRequest& request, HttpClient& client, bool* by_service) {
  if (request.path == "/cancel") return cancel(request, client, by_service);
  const bool exchanges = request.path == "/models/load";
  // What only looks does not keep the model there.
  const bool needed = request.method == "POST" && !exchanges;
  ModelPtr model = exchanges ? nullptr : current();
  if (needed || model == nullptr) access_.check(request, client);
  if (needed) {  // before anything is loaded, or kept
    Service::require_route(request);
    (void)access_.owner(request);
    if (model == nullptr) model = load_current();
  }
  if (model == nullptr) return exchanges ? exchange(request) : answer_without(request);
  *by_service = true;
  return answer_with(std::move(model), request, client, needed);
}

HttpResponse ServedModels::answer_with(ModelPtr model, const HttpRequest& request, HttpClient& client,
                                       bool uses_it) {
  HttpResponse response = model->service->handle(request, client);
  if (uses_it) touch();
  if (!response.stream) return response;
  // The model stays as long as an answer of its is on its way, and goes after it.
  auto held = std::make_shared<std::pair<ModelPtr, std::function<void(HttpSink&)>>>(
      std::move(model), std::move(response.stream));
  response.stream = [this, held](HttpSink& sink) {
    held->second(sink);
    touch();
  };
  return response;
}

void ServedModels::touch() {
  const std::lock_guard lock(mutex_);
  last_use_ = std::chrono::steady_clock::now();
}

// A request that only looks, while no model is there.
HttpResponse ServedModels::answer_without(const HttpRequest& request) const {
  if (std::optional<HttpResponse> response = Service::answer_without_key(request))
    return std::move(*response);
  (void)access_.owner(request);
  if (request.path == "/metrics") return Service::metrics(nullptr);
  throw ApiError(503, "server_error",
                 "the model was given back (--idle-unload); the next request for an answer loads it");
}

// POST /models/load {"model": NAME}
HttpResponse ServedModels::exchange(const HttpRequest& request) {
  if (request.method == "OPTIONS") return Service::preflight();
  if (request.method != "POST") throw ApiError(405, kInvalidRequest, "'/models/load' takes POST");
  if (options_.admin_keys.empty())
    throw ApiError(403, "permission_error", "models are not exchanged here (--admin-key-file)");
  (void)admin_.owner(request);
  const Json body = parse_request(request.body);
  RequestFields fields(body);
  const std::string name = fields.required_text("model");
  const std::vector<std::string>& names = options_.names;
  if (std::find(names.begin(), names.end(), name) == names.end())
    throw ApiError(404, kInvalidRequest,
                   fmt::format("there is no model '{}'; there are '{}' (--other-model)", printable(name),
                               fmt::join(names, "', '")),
                   "model", "model_not_found");
  const std::lock_guard loading(loading_);
  if (current() == nullptr || name_ != name) {
    use(load_(name));
    name_ = name;
  }
  JsonWriter json;
  json.begin_object().field("model", name).field("loaded", true).end_object();
  return {200, "application/json", {}, json.text()};
}

// An answer may be one of a model that was exchanged since.
HttpResponse ServedModels::cancel(const HttpRequest& request, HttpClient& client, bool* by_service) {
  std::vector<ModelPtr> models;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& one : all_)
      if (ModelPtr model = one.lock()) models.push_back(std::move(model));
  }
  std::reverse(models.begin(), models.end());  // the current one first
  *by_service = !models.empty();
  for (const ModelPtr& model : models) {
    HttpResponse response = model->service->handle(request, client);
    if (response.status != 404 || model == models.back()) return response;
  }
  access_.check(request, client);
  (void)access_.owner(request);
  throw ApiError(404, kInvalidRequest, "no answer of this id is running", "id");
}

void ServedModels::give_back_idle() {
  if (options_.idle.count() == 0) return;
  const std::unique_lock loading(loading_, std::try_to_lock);  // nobody loads beside what is going
  if (!loading) return;
  ModelPtr model;  // goes outside of mutex_
  const std::lock_guard lock(mutex_);
  // The only holder: no request is being answered with it.
  if (current_ == nullptr || current_.use_count() > 1 || !current_->scheduler->idle() ||
      std::chrono::steady_clock::now() - last_use_ < options_.idle)
    return;
  model = std::exchange(current_, nullptr);
}

bool ServedModels::idle() const {
  const std::lock_guard lock(mutex_);
  return std::all_of(all_.begin(), all_.end(), [](const auto& one) {
    const ModelPtr model = one.lock();
    return model == nullptr || model->scheduler->idle();
  });
}

}  // namespace quern
