#!/usr/bin/env bash
# The MLflow server of a cluster, with user names and passwords. From the environment:
#   MLFLOW_BACKEND_STORE_URI        postgresql://USER:PASSWORD@HOST/mlflow; never SQLite on a network file system
#   MLFLOW_ARTIFACTS_DESTINATION    folder or URL (s3://, gs://)
#   MLFLOW_AUTH_ADMIN_PASSWORD      of the user admin, 12 characters or more
#   MLFLOW_FLASK_SERVER_SECRET_KEY  any random text, the same at every start
#   MLFLOW_HOST, MLFLOW_PORT        127.0.0.1 and 5000 unless set: name the node's private address to let other nodes in
# These are the server's alone. Its clients, which log in by MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, need none of them.
set -euo pipefail
: "${MLFLOW_BACKEND_STORE_URI:?}" "${MLFLOW_ARTIFACTS_DESTINATION:?}" "${MLFLOW_AUTH_ADMIN_PASSWORD:?}"
: "${MLFLOW_FLASK_SERVER_SECRET_KEY:?}"
# The server reads the first two from here: arguments would show the store's password to everybody on the machine.
export MLFLOW_BACKEND_STORE_URI MLFLOW_ARTIFACTS_DESTINATION MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # nothing here needs it, and it runs code
host=${MLFLOW_HOST:-127.0.0.1} port=${MLFLOW_PORT:-5000}
# By default it answers to private addresses only, and a cluster's may be public ones.
export MLFLOW_SERVER_ALLOWED_HOSTS=${MLFLOW_SERVER_ALLOWED_HOSTS:-$host:$port,localhost:$port,127.0.0.1:$port}
MLFLOW_AUTH_CONFIG_PATH=$(mktemp) # readable by its owner alone: the store's address holds a password
export MLFLOW_AUTH_CONFIG_PATH
cat > "$MLFLOW_AUTH_CONFIG_PATH" <<END
[mlflow]
default_permission = READ
database_uri = ${MLFLOW_BACKEND_STORE_URI//%/%%}
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
END
exec python -m mlflow server --app-name basic-auth --host "$host" --port "$port"
