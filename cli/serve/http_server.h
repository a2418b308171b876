// A server of HTTP/1.1 on one socket: a thread for each connection, bounds on everything that a client can
// make large or long.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "cli/serve/http_message.h"
#include "quant/output_file.h"

namespace quern {

struct HttpServerOptions {
  std::string address = "127.0.0.1";  // numeric, or "localhost"; not used with unix_path
  uint16_t port = 0;                  // 0: the system chooses
  std::string unix_path = {};         // a socket of mode 0600 there; empty: TCP
  int inherited = -1;                 // a socket that listens already, in place of these; -1: none
  HttpLimits limits = {};
  uint64_t bodies_bytes = 64u << 20;  // of all requests that are being read, together
  size_t connections = 512;           // one more is answered with a 503
  double head_seconds = 10;           // for a request's head, from its first byte
  double body_seconds = 60;           // for its body
  double idle_seconds = 60;           // without a request
  double write_seconds = 30;          // without a byte that the client takes
};

// The other end of a connection while its request is answered.
class HttpClient {
 public:
  virtual ~HttpClient() = default;
  // The connection is closed, in either direction, or broken.
  virtual bool gone() = 0;
  // The address of this end; empty: none (a unix socket).
  virtual std::string local_address() const = 0;
};

// Where the parts of a streamed body go.
class HttpSink {
 public:
  virtual ~HttpSink() = default;
  // False: the client is gone.
  virtual bool write(std::string_view part) = 0;
};

struct HttpResponse {
  int status = 200;
  std::string type = "application/json";
  HttpHeaders headers;  // beside Content-Type, Content-Length and what belongs to the connection
  std::string body;
  std::function<void(HttpSink&)> stream = {};  // instead of a body
};

// Answers from the connection's thread; it throws only what is a bug.
using HttpHandler = std::function<HttpResponse(const HttpRequest& request, HttpClient& client)>;
// What is answered to a message that never becomes a request.
using HttpRefusal = std::function<HttpResponse(int status, const std::string& message)>;

class HttpServer {
 public:
  // Listens: who connects from now on waits until run() takes the connection. Throws kUsage for an address
  // that is none, kIo for what the system refuses.
  HttpServer(const HttpServerOptions& options, HttpHandler handler, HttpRefusal refusal);
  // Waits for its connections.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  uint16_t port() const { return port_; }
  // Takes connections until stop(), which it asks at least ten times a second, says true.
  void run(const std::function<bool()>& stop);
  // Listens no more, and takes no new requests on connections that are open; those that are being answered go
  // on. After run(), by the same thread.
  void drain();

 private:
  friend class HttpConnection;

  void listen_tcp();
  void listen_unix();
  void take_connection();
  // Bytes of bodies that are being read. False: no room.
  bool reserve_body(uint64_t bytes);
  void release_body(uint64_t bytes) { bodies_bytes_ -= bytes; }

  const HttpServerOptions options_;
  const HttpHandler handler_;
  const HttpRefusal refusal_;
  int socket_ = -1;
  std::optional<RemovedOnSignal> unix_file_;  // the socket of --unix, while its file is there
  uint16_t port_ = 0;
  std::atomic<uint64_t> bodies_bytes_ = 0;
  std::atomic<bool> draining_ = false;
  mutable std::mutex mutex_;
  std::condition_variable closed_;
  size_t n_connections_ = 0;
};

}  // namespace quern
