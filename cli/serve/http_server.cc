#include "cli/serve/http_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>
#include <thread>

#include "quant/error.h"

namespace quern {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr int kBacklog = 512;
constexpr size_t kReadBytes = 16 * 1024;
constexpr int kTick = 100;  // ms: how soon a draining server is noticed

SteadyClock::time_point after(double seconds) {
  return SteadyClock::now() +
         std::chrono::duration_cast<SteadyClock::duration>(std::chrono::duration<double>(seconds));
}

}  // namespace

// One connection, in its own thread.
class HttpConnection final : public HttpClient, public HttpSink {
 public:
  HttpConnection(HttpServer& server, int fd) : server_(server), options_(server.options_), fd_(fd) {}
  ~HttpConnection() override {
    server_.release_body(reserved_);
    close(fd_);
  }
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  void serve();

  bool gone() override;
  std::string local_address() const override;
  bool write(std::string_view part) override;

 private:
  enum class Wait { kReady, kTimeout, kGone };
  Wait wait_for(short events, SteadyClock::time_point deadline, bool idle = false);
  bool read_some(SteadyClock::time_point deadline, bool idle = false);
  bool read_request(HttpRequest* request);
  bool send_all(std::string_view bytes);
  bool answer(const HttpRequest& request, HttpResponse response);
  bool refuse(const HttpError& error);
  void linger();

  HttpServer& server_;
  const HttpServerOptions& options_;
  int fd_;
  std::string buffer_;  // read, and not yet used
  uint64_t reserved_ = 0;
  bool chunked_ = false;  // of the answer that is being written
  bool has_body_ = true;  // the answer that is being written
  bool broken_ = false;
};

HttpConnection::Wait HttpConnection::wait_for(short events, SteadyClock::time_point deadline, bool idle) {
  for (;;) {
    if (idle && server_.draining_) return Wait::kTimeout;
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - SteadyClock::now()).count();
    if (left <= 0) return Wait::kTimeout;
    pollfd poll_fd{fd_, events, 0};
    const int n = poll(&poll_fd, 1, static_cast<int>(std::min<int64_t>(left + 1, idle ? kTick : INT32_MAX)));
    if (n < 0 && errno != EINTR) return Wait::kGone;
    if (n <= 0) continue;
    if ((poll_fd.revents & events) != 0) return Wait::kReady;
    return Wait::kGone;
  }
}

// False: nothing came in time, or nothing will.
bool HttpConnection::read_some(SteadyClock::time_point deadline, bool idle) {
  if (wait_for(POLLIN, deadline, idle) != Wait::kReady) return false;
  const size_t before = buffer_.size();
  buffer_.resize(before + kReadBytes);
  const ssize_t n = recv(fd_, buffer_.data() + before, kReadBytes, 0);
  buffer_.resize(before + static_cast<size_t>(std::max<ssize_t>(n, 0)));
  return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

// False: the connection has ended. Throws HttpError.
bool HttpConnection::read_request(HttpRequest* request) {
  const auto idle_end = after(options_.idle_seconds);
  while (buffer_.empty())
    if (!read_some(idle_end, /*idle=*/true)) return false;

  HttpRequestParser parser(options_.limits);
  auto deadline = after(options_.head_seconds);
  bool in_body = false;
  for (;;) {
    const size_t used = parser.push(buffer_);
    buffer_.erase(0, used);
    if (parser.head_done() && !parser.done()) {
      if (!in_body) {
        in_body = true;
        deadline = after(options_.body_seconds);
        if (parser.expects_continue() && !send_all("HTTP/1.1 100 Continue\r\n\r\n")) return false;
      }
      reserved_ += used;
      if (!server_.reserve_body(used)) {
        reserved_ -= used;
        throw HttpError(503, "too many large requests at a time; try again");
      }
    }
    if (parser.done()) break;
    if (!read_some(deadline)) {
      if (gone()) return false;
      throw HttpError(408, "the request did not come to its end in time");
    }
  }
  *request = parser.take();
  return true;
}

bool HttpConnection::gone() {
  if (broken_) return true;
  pollfd poll_fd{fd_, POLLRDHUP, 0};
  if (poll(&poll_fd, 1, 0) > 0) broken_ = true;
  return broken_;
}

std::string HttpConnection::local_address() const {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  auto* address = reinterpret_cast<sockaddr*>(&storage);
  if (getsockname(fd_, address, &size) != 0) return {};
  char text[INET6_ADDRSTRLEN] = "";
  if (storage.ss_family == AF_INET)
    inet_ntop(AF_INET, &reinterpret_cast<sockaddr_in*>(&storage)->sin_addr, text, sizeof text);
  if (storage.ss_family == AF_INET6) {
    const in6_addr& six = reinterpret_cast<sockaddr_in6*>(&storage)->sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(&six))  // the socket listens for both
      inet_ntop(AF_INET, &six.s6_addr[12], text, sizeof text);
    else
      inet_ntop(AF_INET6, &six, text, sizeof text);
  }
  return text;
}

bool HttpConnection::send_all(std::string_view bytes) {
  while (!bytes.empty() && !broken_) {
    const ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      bytes.remove_prefix(static_cast<size_t>(n));
    } else if (n < 0 && errno == EAGAIN) {
      broken_ = wait_for(POLLOUT, after(options_.write_seconds)) != Wait::kReady;
    } else if (n == 0 || errno != EINTR) {
      broken_ = true;
    }
  }
  return !broken_;
}

bool HttpConnection::write(std::string_view part) {
  if (part.empty()) return !gone();
  if (!has_body_) return true;
  if (!chunked_) return send_all(part);
  return send_all(fmt::format("{:x}\r\n{}\r\n", part.size(), part));
}

// False: the connection ends with this answer.
bool HttpConnection::answer(const HttpRequest& request, HttpResponse response) {
  const bool streams = response.stream != nullptr;
  chunked_ = streams && !request.is_http_1_0;
  has_body_ = request.method != "HEAD";
  const bool stays = request.keep_alive && !server_.draining_ && (!streams || chunked_);
  HttpHeaders headers = std::move(response.headers);
  headers.emplace_back("Content-Type", response.type);
  if (!streams) headers.emplace_back("Content-Length", std::to_string(response.body.size()));
  if (chunked_) headers.emplace_back("Transfer-Encoding", "chunked");
  if (!stays)
    headers.emplace_back("Connection", "close");
  else if (request.is_http_1_0)
    headers.emplace_back("Connection", "keep-alive");
  std::string head = http_head(response.status, headers);
  if (!streams) return send_all(has_body_ ? head + response.body : head) && stays;
  if (!send_all(head)) broken_ = true;  // the stream is told by its first write
  response.stream(*this);
  if (chunked_ && has_body_) send_all("0\r\n\r\n");
  return !broken_ && stays;
}

bool HttpConnection::refuse(const HttpError& error) {
  HttpRequest request;
  request.keep_alive = false;
  answer(request, server_.refusal_(error.status(), error.what()));
  linger();
  return false;
}

// What the client still sends is taken for a moment, since closing over unread bytes would reset the
// connection before the client has read why.
void HttpConnection::linger() {
  shutdown(fd_, SHUT_WR);
  constexpr size_t kMost = 1 << 20;
  const auto deadline = after(1);
  for (size_t n = 0; n < kMost; n += buffer_.size()) {
    buffer_.clear();
    if (!read_some(deadline)) return;
  }
}

void HttpConnection::serve() {
  for (bool stays = true; stays;) {
    try {
      HttpRequest request;
      if (!read_request(&request)) return;
      const uint64_t held = std::exchange(reserved_, 0);
      HttpResponse response = server_.handler_(request, *this);
      request.body = {};
      server_.release_body(held);
      stays = answer(request, std::move(response));
    } catch (const HttpError& error) {
      stays = refuse(error);
    }
  }
}

HttpServer::HttpServer(const HttpServerOptions& options, HttpHandler handler, HttpRefusal refusal)
    : options_(options), handler_(std::move(handler)), refusal_(std::move(refusal)) {
  if (options_.inherited >= 0) {
    socket_ = options_.inherited;
    port_ = options_.port;
  } else {
    options_.unix_path.empty() ? listen_tcp() : listen_unix();
  }
}

HttpServer::~HttpServer() {
  drain();
  std::unique_lock lock(mutex_);
  closed_.wait(lock, [this] { return n_connections_ == 0; });
}

void HttpServer::listen_tcp() {
  sockaddr_storage storage{};
  socklen_t size = 0;
  const std::string address = options_.address == "localhost" ? "127.0.0.1" : options_.address;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&storage);
  if (inet_pton(AF_INET, address.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(options_.port);
    size = sizeof *v4;
  } else if (inet_pton(AF_INET6, address.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(options_.port);
    size = sizeof *v6;
  } else {
    fail(ErrorCode::kUsage, "--host: '{}' is no IP address, nor localhost", printable(options_.address));
  }
  socket_ = socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int one = 1;
  if (socket_ < 0 || setsockopt(socket_, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
      bind(socket_, reinterpret_cast<sockaddr*>(&storage), size) != 0 || listen(socket_, kBacklog) != 0) {
    const int error = errno;
    if (socket_ >= 0) close(socket_);
    fail_errno(error, fmt::format("cannot listen on {} port {} (--host, --port)", address, options_.port));
  }
  size = sizeof storage;
  getsockname(socket_, reinterpret_cast<sockaddr*>(&storage), &size);
  port_ = ntohs(storage.ss_family == AF_INET ? v4->sin_port : v6->sin6_port);
}

void HttpServer::listen_unix() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string& path = options_.unix_path;
  if (path.size() >= sizeof address.sun_path)
    fail(ErrorCode::kUsage, "--unix: a socket's path has at most {} bytes", sizeof address.sun_path - 1);
  path.copy(address.sun_path, path.size());
  socket_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const mode_t mask = umask(0177);  // no moment at which others may connect
  const bool bound =
      socket_ >= 0 && bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  const int error = errno;
  umask(mask);
  if (bound) unix_file_.emplace(path);
  if (!bound || listen(socket_, kBacklog) != 0) {
    const int reason = bound ? errno : error;
    if (bound) unlink(path.c_str());
    if (socket_ >= 0) close(socket_);
    fail_errno(reason, fmt::format("cannot listen on '{}' (--unix)", printable(path, kPathBytes)));
  }
}

void HttpServer::run(const std::function<bool()>& stop) {
  while (!stop()) {
    pollfd poll_fd{socket_, POLLIN, 0};
    if (poll(&poll_fd, 1, kTick) > 0) take_connection();
  }
}

void HttpServer::take_connection() {
  const int fd = accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
  if (fd < 0) {
    // Without descriptors poll() would say at once that there is a connection to take.
    if (errno == EMFILE || errno == ENFILE) std::this_thread::sleep_for(std::chrono::milliseconds(kTick));
    return;
  }
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);  // not on a unix socket, where there is no need
  const auto refuse = [&] {
    const HttpResponse response = refusal_(503, "too many connections; try again later");
    const std::string text = http_head(503, {{"Content-Type", response.type},
                                             {"Content-Length", std::to_string(response.body.size())},
                                             {"Connection", "close"}}) +
                             response.body;
    (void)send(fd, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    close(fd);
  };
  {
    const std::lock_guard lock(mutex_);
    if (n_connections_ >= options_.connections) return refuse();
    ++n_connections_;
  }
  try {
    std::thread([this, fd] {
      try {
        HttpConnection(*this, fd).serve();
      } catch (const std::exception&) {  // no memory: this connection ends, the others go on
      }
      const std::lock_guard lock(mutex_);
      --n_connections_;
      closed_.notify_all();
    }).detach();
  } catch (const std::system_error&) {  // no more threads
    const std::lock_guard lock(mutex_);
    --n_connections_;
    refuse();
  }
}

bool HttpServer::reserve_body(uint64_t bytes) {
  if (bodies_bytes_.fetch_add(bytes) + bytes <= options_.bodies_bytes) return true;
  bodies_bytes_ -= bytes;
  return false;
}

void HttpServer::drain() {
  if (draining_.exchange(true)) return;
  close(socket_);
  if (!unix_file_) return;
  unlink(options_.unix_path.c_str());
  unix_file_.reset();
}

}  // namespace quern
