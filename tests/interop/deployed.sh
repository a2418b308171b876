#!/bin/sh
# The unit, the socket and the site of cli/serve/deploy as they are used: systemd-analyze reads the unit, systemd-socket-activate starts
# the server with its first connection, nginx speaks TLS in front of it. By hand; Debian packages: systemd, nginx-light,
# openssl, curl.
#
#   tests/interop/deployed.sh QUERN MODEL
set -eu
cd "$(dirname "$0")/../.."
quern=$(realpath "$1")
model=$(realpath "$2")
name=quern.example.org
port=8443
folder=$(mktemp -d)
activator=
stop() {
  [ -z "$activator" ] || kill "$activator" 2>/dev/null || :
  [ ! -e "$folder/nginx.pid" ] || nginx -c "$folder/nginx.conf" -s stop
  wait
  rm -rf "$folder"
}
trap stop EXIT
expect() { # WHAT FOUND EXPECTED
  [ "$2" = "$3" ] || { echo "$1: expected $3, found $2" >&2; exit 1; }
  echo "$1: $2"
}

cp cli/serve/deploy/quern.socket "$folder"
sed "s|/usr/local/bin/quern|$quern|" cli/serve/deploy/quern.service >"$folder/quern.service"
(cd "$folder" && systemd-analyze verify --man=no ./quern.service ./quern.socket)

openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$name" -keyout "$folder/privkey.pem" -out "$folder/fullchain.pem" 2>/dev/null
sed -e "s|/etc/ssl/quern|$folder|; s|listen 443 ssl|listen 127.0.0.1:$port ssl|; s|/run/quern.sock|$folder/quern.sock|" \
  cli/serve/deploy/nginx.conf >"$folder/site.conf"
cat >"$folder/nginx.conf" <<END
pid $folder/nginx.pid;
error_log $folder/error.log;
user $(id -un);
events {}
http {
  access_log off;
  client_body_temp_path $folder/body;
  proxy_temp_path $folder/proxy;
  fastcgi_temp_path $folder/fastcgi;
  uwsgi_temp_path $folder/uwsgi;
  scgi_temp_path $folder/scgi;
  include $folder/site.conf;
}
END
nginx -q -t -c "$folder/nginx.conf"
echo "the key" >"$folder/keys"
systemd-socket-activate -l "$folder/quern.sock" "$quern" serve "$model" --cache-ram 0 --ctx 1024 --slots 2 \
  --api-key-file "$folder/keys" --allow-origin "https://$name" 2>"$folder/log" &
activator=$!
while [ ! -S "$folder/quern.sock" ]; do sleep 0.1; done
nginx -c "$folder/nginx.conf"

ask() { # PATH ARGUMENTS...: the status
  path=$1
  shift
  curl -s --cacert "$folder/fullchain.pem" --resolve "$name:$port:127.0.0.1" -H "Content-Type: application/json" -o "$folder/answer" \
    -w "%{http_code}" "$@" "https://$name:$port$path"
}
key="Authorization: Bearer the key"
body='{"prompt": "Once", "max_tokens": 8, "seed": 1}'
expect "the first connection starts the server" "$(ask /health)" 200
expect "without a key" "$(ask /v1/models)" 401
expect "with one" "$(ask /v1/models -H "$key")" 200
expect "from the page" "$(ask /v1/completions -H "$key" -H "Origin: https://$name" -d "$body")" 200
expect "from another's page" "$(ask /v1/completions -H "$key" -H "Origin: https://evil.example" -d "$body")" 403
head -c 9000000 /dev/zero >"$folder/large"
expect "a body of 9 MB" "$(ask /v1/completions -H "$key" --data-binary "@$folder/large")" 413
expect "a stream" "$(ask /v1/completions -H "$key" -d '{"prompt": "Once", "max_tokens": 8, "stream": true}')" 200
expect "its end" "$(grep -c '^data: \[DONE\]' "$folder/answer")" 1
