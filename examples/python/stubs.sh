#!/bin/sh
# Generates the Python stubs of the API: sh stubs.sh DIR. Debian 12: apt-get install protobuf-compiler
# protobuf-compiler-grpc libprotobuf-dev python3-protobuf python3-grpcio python3-cryptography
set -eu
mkdir -p "${1:?name the directory for the stubs}"
out=$(realpath "$1")
cd "$(dirname "$0")/../../proto"
exec protoc -I . -I vendor --python_out="$out" --grpc_python_out="$out" \
  --plugin=protoc-gen-grpc_python="$(command -v grpc_python_plugin)" \
  rms/v1/*.proto buf/validate/validate.proto google/rpc/status.proto
