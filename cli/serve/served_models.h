// The model that a server answers with: given back when nobody has asked for a while and loaded again by who
// asks next, exchanged for another by who may.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cli/draft_model.h"
#include "cli/serve/service.h"

namespace quern {

// A model and all that answers with it; each member refers to those before it.
struct ServedModel {
  std::unique_ptr<Model> model;
  std::unique_ptr<DraftModel> draft;   // null: none
  std::unique_ptr<ChatEncoding> chat;  // null: the model has no chat template
  std::unique_ptr<Scheduler> scheduler;
  std::unique_ptr<Service> service;
};

struct ServedModelsOptions {
  std::vector<std::string> names;  // of models that may be loaded; the first is there at the start. Not empty
  std::chrono::seconds idle{0};    // without a request, before the memory is given back; 0: never
  std::vector<std::string> admin_keys;  // of who may exchange the model; none: nobody
  AccessOptions access;                 // what the services ask for, too
};

// Thread-safe.
class ServedModels {
 public:
  // Loads the model of a name; one call at a time, by any thread. Throws what Model::load throws.
  using LoadFn = std::function<std::unique_ptr<ServedModel>(const std::string& name)>;

  // Loads the first, and throws what `load` throws.
  ServedModels(ServedModelsOptions options, LoadFn load);

  // As Service::handle(). A request that needs the model loads it where it is not there; running answers
  // finish on the one that they have begun with.
  HttpResponse handle(const HttpRequest& request, HttpClient& client);
  // Gives the memory back where that is due: to be called now and then.
  void give_back_idle();
  // Nothing waits and nothing runs, with any model.
  bool idle() const;

 private:
  using ModelPtr = std::shared_ptr<ServedModel>;

  ModelPtr current() const;
  ModelPtr load_current();
  void touch();
  HttpResponse route(const HttpRequest& request, HttpClient& client, bool* by_service);
  HttpResponse answer_with(ModelPtr model, const HttpRequest& request, HttpClient& client, bool uses_it);
  HttpResponse answer_without(const HttpRequest& request) const;
  HttpResponse exchange(const HttpRequest& request);
  HttpResponse cancel(const HttpRequest& request, HttpClient& client, bool* by_service);
  ModelPtr use(std::unique_ptr<ServedModel> model);

  const ServedModelsOptions options_;
  const LoadFn load_;
  const Access access_, admin_;
  std::mutex loading_;        // of name_, and one model is loaded at a time
  std::string name_;          // of options_.names: the current one, or the one to be loaded
  mutable std::mutex mutex_;  // of what follows
  ModelPtr current_;          // null: given back
  std::vector<std::weak_ptr<ServedModel>> all_;  // that are there, or were
  std::chrono::steady_clock::time_point last_use_;
};

}  // namespace quern
