#!/bin/sh
# Makes the secrets of compose.yaml in ./secrets. Existing secrets stay as they are.
set -eu
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

# Only the owner can enter the folder. The files themselves are readable by all: the users in the containers have other
# numbers than the owner, and see nothing of the folder but the files that they are given.
mkdir -p secrets
chmod 700 secrets
cd secrets
umask 022
[ -s mongodb_key ] || random > mongodb_key
[ -s realtime_mongo_url ] || echo "mongodb://realtime:$(random)@mongodb:27017/?replicaSet=realtime" > realtime_mongo_url
if ! [ -s redis_conf ]; then
    password=$(random)
    echo "redis://:$password@redis:6379/0" > realtime_redis_url
    echo "requirepass $password" > redis_conf
fi
