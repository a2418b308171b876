#include "cli/serve/inherited_socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <string_view>

#include "quant/error.h"

namespace quern {
namespace {

constexpr int kFirstSocket = 3;  // SD_LISTEN_FDS_START

std::optional<int64_t> number_in_environment(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr) return std::nullopt;
  const std::string_view text = value;
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

}  // namespace

std::optional<InheritedSocket> take_inherited_socket() {
  const std::optional<int64_t> pid = number_in_environment("LISTEN_PID"),
                               count = number_in_environment("LISTEN_FDS");
  if (pid != getpid() || !count || *count == 0) return std::nullopt;
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) unsetenv(name);
  if (*count != 1)
    fail(ErrorCode::kUsage,
         "LISTEN_FDS: {} sockets were handed over, and one is served: one ListenStream=", *count);
  InheritedSocket inherited{kFirstSocket, {}};
  int listens = 0;
  socklen_t size = sizeof listens;
  sockaddr_storage storage{};
  socklen_t storage_size = sizeof storage;
  if (getsockopt(inherited.fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || listens == 0 ||
      getsockname(inherited.fd, reinterpret_cast<sockaddr*>(&storage), &storage_size) != 0)
    fail(ErrorCode::kUsage,
         "LISTEN_FDS: descriptor {} takes no connections: expected a socket that listens (Accept=no)",
         inherited.fd);
  fcntl(inherited.fd, F_SETFD, FD_CLOEXEC);
  char text[INET6_ADDRSTRLEN] = {};
  if (storage.ss_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&storage);
    inherited.address = inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
    inherited.port = ntohs(v4->sin_port);
  } else if (storage.ss_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&storage);
    inherited.address = inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
    inherited.port = ntohs(v6->sin6_port);
  } else if (storage.ss_family != AF_UNIX) {
    fail(ErrorCode::kUsage, "LISTEN_FDS: expected a socket of TCP or a unix socket, found family {}",
         storage.ss_family);
  }
  return inherited;
}

}  // namespace quern
