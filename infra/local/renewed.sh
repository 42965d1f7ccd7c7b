#!/bin/sh
# Gives roadstead a certificate that certbot has obtained or renewed, and its key. Certbot runs it after each renewal when it is in
# /etc/letsencrypt/renewal-hooks/deploy, and names the folder of the files in RENEWED_LINEAGE. The server reads them by itself.
#
#   RENEWED_LINEAGE=/etc/letsencrypt/live/registry.example.com renewed.sh [FOLDER [GROUP]]
set -eu
folder=${1:-/etc/roadstead-tls}
group=${2:-roadstead-tls}

install -d -m 0750 -g "$group" "$folder"
install -m 0640 -g "$group" "$RENEWED_LINEAGE/privkey.pem" "$folder/tls.key.new"
install -m 0644 "$RENEWED_LINEAGE/fullchain.pem" "$folder/tls.crt.new"
mv "$folder/tls.key.new" "$folder/tls.key"
mv "$folder/tls.crt.new" "$folder/tls.crt"
