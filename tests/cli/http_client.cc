#include "tests/cli/http_client.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <system_error>

namespace quern::test {
namespace {

std::string without_chunks(std::string_view bytes) {
  std::string body;
  while (!bytes.empty()) {
    const size_t line = bytes.find("\r\n");
    if (line == bytes.npos) break;
    const size_t n = std::strtoul(std::string(bytes.substr(0, line)).c_str(), nullptr, 16);
    bytes.remove_prefix(line + 2);
    if (n == 0 || n > bytes.size()) break;
    body += bytes.substr(0, n);
    bytes.remove_prefix(std::min(bytes.size(), n + 2));
  }
  return body;
}

}  // namespace

std::string Reply::header(std::string_view name) const {
  size_t at = 0;
  while ((at = head.find("\r\n", at)) != head.npos) {
    at += 2;
    const size_t colon = head.find(':', at);
    if (colon == head.npos) break;
    const std::string key = head.substr(at, colon - at);
    if (strcasecmp(key.c_str(), std::string(name).c_str()) != 0) continue;
    return head.substr(colon + 2, head.find("\r\n", colon) - colon - 2);
  }
  return {};
}

Connection::Connection(int port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    throw std::system_error(errno, std::generic_category(), "connect");
}

Connection::Connection(const std::string& unix_path) : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  unix_path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return;
  const int error = errno;
  close(fd_);
  throw std::system_error(error, std::generic_category(), "connect");
}

Connection::~Connection() { close(fd_); }

bool Connection::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

bool Connection::read_some() {
  pollfd poll_fd{fd_, POLLIN, 0};
  if (poll(&poll_fd, 1, 20000) <= 0) return false;
  char buffer[16384];
  const ssize_t n = recv(fd_, buffer, sizeof buffer, 0);
  if (n <= 0) return false;
  bytes_.append(buffer, static_cast<size_t>(n));
  return true;
}

const std::string& Connection::read_until(std::string_view text) {
  while (bytes_.find(text) == bytes_.npos && read_some()) {
  }
  return bytes_;
}

Reply Connection::read_reply() {
  while (read_some()) {
  }
  Reply reply;
  const size_t end = bytes_.find("\r\n\r\n");
  if (end == bytes_.npos) return reply;
  reply.head = bytes_.substr(0, end + 2);
  reply.status = std::atoi(reply.head.c_str() + std::string_view("HTTP/1.1 ").size());
  reply.body = bytes_.substr(end + 4);
  if (reply.header("Transfer-Encoding") == "chunked") reply.body = without_chunks(reply.body);
  return reply;
}

Reply request(int port, std::string_view method, std::string_view path, std::string_view body,
              const std::vector<std::string>& headers) {
  Connection connection(port);
  std::string text = fmt::format("{} {} HTTP/1.1\r\nConnection: close\r\n", method, path);
  bool has_host = false;
  for (const std::string& header : headers) {
    text += header + "\r\n";
    has_host |= header.starts_with("Host:");
  }
  if (!has_host) text += "Host: localhost\r\n";
  if (!body.empty()) text += fmt::format("Content-Length: {}\r\n", body.size());
  connection.send(text + "\r\n");
  connection.send(body);
  return connection.read_reply();
}

Reply post(int port, std::string_view path, std::string_view json, const std::vector<std::string>& headers) {
  std::vector<std::string> all = headers;
  all.emplace_back("Content-Type: application/json");
  return request(port, "POST", path, json, all);
}

}  // namespace quern::test
